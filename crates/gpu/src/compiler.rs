//! From the kernels' source to what a card runs.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::result::{self as nvrtc, NvrtcError};
use cudarc::nvrtc::sys;

/// What all kernels are compiled from.
const SOURCE: &str = concat!(
    include_str!("../kernels/cuda.h"),
    include_str!("../kernels/bf16_tiles.cu"),
    include_str!("../kernels/common.cu"),
    include_str!("../kernels/conv.cu"),
    include_str!("../kernels/conv_gradient.cu"),
    include_str!("../kernels/conv_product.cu"),
    include_str!("../kernels/elementwise.cu"),
    include_str!("../kernels/flash_attention.cu"),
    include_str!("../kernels/layout.cu"),
    include_str!("../kernels/multi.cu"),
    include_str!("../kernels/norm.cu"),
    include_str!("../kernels/optimizer.cu"),
    include_str!("../kernels/softmax.cu"),
);

/// The kernels as the card runs them. PTX instead would be refused by a driver older than the compiler.
pub(crate) fn machine_code(architecture: &str) -> Result<Vec<c_char>, String> {
    let said = |why: NvrtcError| why.to_string();
    let source = CString::new(SOURCE).map_err(|why| why.to_string())?;
    let program = nvrtc::create_program(&source, None).map_err(said)?;
    let options = [
        format!("--gpu-architecture={architecture}"),
        // So that two blocks of 256 threads have room on a processor, and one's copies go on while the other multiplies.
        "--maxrregcount=128".to_owned(),
    ];
    // SAFETY: the program is destroyed last, and the buffers are as large as NVRTC says.
    unsafe {
        let code = match nvrtc::compile_program(program, &options) {
            Ok(()) => {
                let mut size = 0;
                let sized = sys::nvrtcGetCUBINSize(program, &raw mut size).result();
                let mut code = vec![0; size];
                sized
                    .and_then(|()| sys::nvrtcGetCUBIN(program, code.as_mut_ptr()).result())
                    .map(|()| code)
                    .map_err(said)
            }
            Err(why) => {
                let log = nvrtc::get_program_log(program).unwrap_or_default();
                let log: Vec<u8> = log.iter().map(|&c| c as u8).collect();
                Err(format!("{why}: {}", String::from_utf8_lossy(&log)))
            }
        };
        let _ = nvrtc::destroy_program(program);
        code
    }
}
