//! What the machine has, asked once.

use super::{Isa, amx};
use std::sync::OnceLock;

/// AMD's `vdpbf16ps` multiplies two pairs in the time of one f32 multiply-add. Intel's (measured on
/// the fifth Xeon generation) takes more than four times as long, so that widening the weights and
/// multiplying in f32 is faster there, and more exact.
#[cfg(target_arch = "x86_64")]
pub fn fast_bf16_dot() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        let amd = vendor.ebx.to_le_bytes() == *b"Auth";
        machine_has_bf16_dot() && amd
    })
}

#[cfg(target_arch = "x86_64")]
pub fn machine_has_bf16_dot() -> bool {
    // Every CPU with the one has the other.
    detected() >= Isa::Avx512
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
pub fn machine_has_bf16_dot() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
pub fn fast_bf16_dot() -> bool {
    false
}

/// The best instruction set of this machine.
#[cfg(target_arch = "x86_64")]
pub fn detected() -> Isa {
    static DETECTED: OnceLock<Isa> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx512, avx2) {
            (true, _) if amx::is_available() => Isa::Amx,
            (true, _) => Isa::Avx512,
            (false, true) => Isa::Avx2,
            (false, false) => Isa::Portable,
        }
    })
}

/// The best instruction set of this machine.
#[cfg(not(target_arch = "x86_64"))]
pub fn detected() -> Isa {
    Isa::Portable
}
