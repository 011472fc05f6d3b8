//! The kernels through CUDA: its driver, its compiler (NVRTC) and cuBLAS, all looked for at run time.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::cublas::{result as cublas, sys as blas};
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys;

use crate::compiler::machine_code;
use crate::driver::Args;
use crate::matmul::Product;
use crate::{Error, Result};

/// A card. Everything goes to its default stream, so it is done in order.
pub(crate) struct Cuda {
    name: String,
    /// The generation: 8 is Ampere, 9 Hopper.
    major: i32,
    context: sys::CUcontext,
    module: sys::CUmodule,
    functions: Mutex<HashMap<&'static str, Function>>,
    blas: blas::cublasHandle_t,
}

#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: these are handles of CUDA, which may be used from any thread; `enter` makes the context current in each.
unsafe impl Send for Cuda {}
// SAFETY: as above; cuBLAS' handle is used under the lock of `functions`.
unsafe impl Sync for Cuda {}
// SAFETY: as above.
unsafe impl Send for Function {}

fn failed(what: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    move |why| Error::Failed {
        what: what.into(),
        why: why.to_string(),
    }
}

impl Cuda {
    pub fn open(index: usize) -> Result<Cuda> {
        // SAFETY: these look whether files are there.
        unsafe {
            if !sys::is_culib_present() {
                return Err(Error::NoGpu("its driver (libcuda) is not installed".into()));
            }
            for (present, library) in [
                (cudarc::nvrtc::sys::is_culib_present(), "libnvrtc"),
                (blas::is_culib_present(), "libcublas"),
            ] {
                if !present {
                    return Err(Error::NoLibrary { library });
                }
            }
        }
        let none = |why: DriverError| Error::NoGpu(why.to_string());
        driver::init().map_err(none)?;
        let count = driver::device::get_count().map_err(none)?;
        if index >= count as usize {
            return Err(Error::NoGpu(format!(
                "number {index} was asked for, and there are {count}"
            )));
        }
        let device = driver::device::get(index as i32).map_err(none)?;
        let name = driver::device::get_name(device).map_err(none)?;
        // SAFETY: the device is one that the driver has just given.
        let context = unsafe { driver::primary_ctx::retain(device) }.map_err(none)?;
        // SAFETY: so is the context.
        unsafe { driver::ctx::set_current(context) }.map_err(none)?;
        let attribute = |which| {
            // SAFETY: as above.
            unsafe { driver::device::get_attribute(device, which) }.map_err(none)
        };
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let major = attribute(MAJOR)?;
        let architecture = format!("sm_{major}{}", attribute(MINOR)?);
        let module = compile(&architecture)?;
        let blas = cublas::create_handle().map_err(|why| Error::Failed {
            what: "opening cuBLAS".into(),
            why: why.to_string(),
        })?;
        Ok(Cuda {
            name,
            major,
            context,
            module,
            functions: Mutex::default(),
            blas,
        })
    }

    pub fn name(&self) -> String {
        self.name.clone()
    }

    pub fn has_matrix_units(&self) -> bool {
        self.major >= 8
    }

    /// Makes the card the current one of this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { driver::ctx::set_current(self.context) }.map_err(failed("choosing the card"))
    }

    pub fn allocate(&self, len: usize) -> Result<u64> {
        self.enter()?;
        let bytes = len.max(1) * size_of::<f32>();
        // SAFETY: the context is current.
        unsafe { driver::malloc_sync(bytes) }.map_err(|_| Error::Full {
            wanted: bytes >> 20,
            free: driver::mem_get_info().map_or(0, |(free, _)| free >> 20),
        })
    }

    pub fn free(&self, address: u64, _len: usize) {
        // Nothing can be done where it fails, as it does when the program ends.
        let _ = self.enter();
        // SAFETY: `allocate` gave it, and nobody has it any more.
        let _ = unsafe { driver::free_sync(address) };
    }

    pub fn upload(&self, values: &[f32], address: u64) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the address is that of as many numbers; the values are copied before this returns.
        unsafe { driver::memcpy_htod_sync(address, values) }.map_err(failed("copying to the card"))
    }

    pub fn download(&self, address: u64, values: &mut [f32]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the address is that of as many numbers.
        unsafe { driver::memcpy_dtoh_sync(values, address) }
            .map_err(failed("copying from the card"))
    }

    pub fn launch(
        &self,
        kernel: &'static str,
        [blocks, threads, shared]: [u32; 3],
        args: &Args,
    ) -> Result<()> {
        self.enter()?;
        let function = self.function(kernel, shared)?;
        let mut args = *args;
        let mut parameters = [(&raw mut args).cast::<c_void>()];
        let stream = std::ptr::null_mut();
        // SAFETY: every kernel takes one `Args`, whose addresses are of memory that the callers in this crate made large
        // enough, and that is used again only by what is launched later.
        unsafe {
            driver::launch_kernel(
                function.0,
                (blocks, 1, 1),
                (threads, 1, 1),
                shared,
                stream,
                &mut parameters,
            )
        }
        .map_err(failed(kernel))
    }

    /// A kernel, which is always launched with the same bytes of shared memory.
    fn function(&self, kernel: &'static str, shared: u32) -> Result<Function> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(kernel) {
            return Ok(function);
        }
        let name = CString::new(kernel).map_err(|_| Error::Failed {
            what: kernel.into(),
            why: "no such name".into(),
        })?;
        // SAFETY: the module lives as long as `self`.
        let found = unsafe { driver::module::get_function(self.module, name) };
        let function = Function(found.map_err(failed(kernel))?);
        if shared > 0 {
            // More than 48 KiB have to be asked for.
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe { driver::function::set_function_attribute(function.0, most, shared as i32) }
                .map_err(failed(kernel))?;
        }
        functions.insert(kernel, function);
        Ok(function)
    }

    /// cuBLAS counts in columns, so its A is our B, and its result is our C by rows.
    pub fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        use blas::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
        use blas::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT;
        use blas::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        use blas::cudaDataType::CUDA_R_32F as F32;

        self.enter()?;
        let [m, n, k] = product.sizes.map(|size| size as i32);
        let [a_width, b_width, c_width] = product.widths.map(|width| width as i32);
        let [a_stride, b_stride, c_stride] = product.strides.map(|stride| stride as i64);
        let operation = |transposed| if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
        let compute = match product.rounded {
            true => CUBLAS_COMPUTE_32F_FAST_TF32,
            false => CUBLAS_COMPUTE_32F,
        };
        let _one_at_a_time = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the addresses are of matrices of these sizes, which the callers in this crate see to.
        unsafe {
            cublas::gemm_strided_batched_ex(
                self.blas,
                operation(product.transposed[1]),
                operation(product.transposed[0]),
                n,
                m,
                k,
                (&raw const product.alpha).cast(),
                b as *const c_void,
                F32,
                b_width,
                b_stride,
                a as *const c_void,
                F32,
                a_width,
                a_stride,
                (&raw const product.beta).cast(),
                c as *mut c_void,
                F32,
                c_width,
                c_stride,
                product.batch as i32,
                compute,
                CUBLAS_GEMM_DFALT,
            )
        }
        .map_err(|why| Error::Failed {
            what: format!("the product {product:?}"),
            why: why.to_string(),
        })
    }
}

fn compile(architecture: &str) -> Result<sys::CUmodule> {
    let failed_with = |why: String| Error::Failed {
        what: "compiling the kernels".into(),
        why,
    };
    let code = machine_code(architecture).map_err(failed_with)?;
    // SAFETY: the context is current, and the code is whole.
    unsafe { driver::module::load_data(code.as_ptr().cast()) }
        .map_err(|why| failed_with(why.to_string()))
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // The last to have it may be a thread that never used it.
        let _ = self.enter();
        // SAFETY: the handles are ours, and used no more.
        unsafe {
            let _ = cublas::destroy_handle(self.blas);
            let _ = driver::module::unload(self.module);
        }
    }
}
