//! Asks the processor for memory that will be needed soon.

#![allow(unsafe_code)]

/// Brings a value into the nearest cache while other work goes on; a hint, without effect on what
/// the program computes.
#[inline(always)]
pub(super) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let start = std::ptr::from_ref(value).cast::<i8>();
        for line in (0..size_of::<T>()).step_by(LINE_BYTES) {
            // SAFETY: the address lies inside the value, and prefetching accesses nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
