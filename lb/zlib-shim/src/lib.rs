//! zlib-rs behind the names of `libz-ng-sys`.
//!
//! Owns the one difference between both crates: in libz-ng-sys the allocator fields of `z_stream` are plain function
//! pointers, in libz-rs-sys they are `Option`s of the same. Both have one layout, so a pointer may be cast.
//! Offers exactly what flate2 uses and refuses to grow beyond that.
#![allow(non_camel_case_types, non_snake_case, clippy::missing_safety_doc)]

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

pub use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_FULL_FLUSH, Z_MEM_ERROR,
    Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_PARTIAL_FLUSH, Z_STREAM_END, Z_STREAM_ERROR, Z_SYNC_FLUSH, Z_VERSION_ERROR,
};

pub type uInt = c_uint;
pub type uLong = c_ulong;
pub type Bytef = u8;
pub type voidpf = *mut c_void;
pub type alloc_func = unsafe extern "C" fn(voidpf, uInt, uInt) -> voidpf;
pub type free_func = unsafe extern "C" fn(voidpf, voidpf);
pub enum internal_state {}

#[repr(C)]
#[derive(Copy, Clone)]
pub struct z_stream {
    pub next_in: *mut Bytef,
    pub avail_in: uInt,
    pub total_in: uLong,
    pub next_out: *mut Bytef,
    pub avail_out: uInt,
    pub total_out: uLong,
    pub msg: *mut c_char,
    pub state: *mut internal_state,
    pub zalloc: alloc_func,
    pub zfree: free_func,
    pub opaque: voidpf,
    pub data_type: c_int,
    pub adler: uLong,
    pub reserved: uLong,
}
pub type z_streamp = *mut z_stream;

const _: () = assert!(core::mem::size_of::<z_stream>() == core::mem::size_of::<libz_rs_sys::z_stream>());
const _: () = assert!(
    core::mem::offset_of!(z_stream, zalloc) == core::mem::offset_of!(libz_rs_sys::z_stream, zalloc)
        && core::mem::offset_of!(z_stream, reserved) == core::mem::offset_of!(libz_rs_sys::z_stream, reserved)
);

macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        pub unsafe fn $name(strm: z_streamp, $($arg: $ty),*) -> c_int {
            // SAFETY: the layouts are equal (asserted above); the caller keeps zlib's own contract.
            unsafe { libz_rs_sys::$name(strm.cast(), $($arg),*) }
        }
    )*};
}

forward! {
    deflate(flush: c_int);
    deflateEnd();
    deflateReset();
    deflateParams(level: c_int, strategy: c_int);
    deflateSetDictionary(dictionary: *const Bytef, length: uInt);
    inflate(flush: c_int);
    inflateEnd();
    inflateReset2(window_bits: c_int);
    inflateSetDictionary(dictionary: *const Bytef, length: uInt);
}

pub unsafe fn deflateInit2_(
    strm: z_streamp,
    level: c_int,
    method: c_int,
    window_bits: c_int,
    memory_level: c_int,
    strategy: c_int,
    version: *const c_char,
    stream_size: c_int,
) -> c_int {
    // SAFETY: as in `forward`.
    unsafe {
        libz_rs_sys::deflateInit2_(
            strm.cast(), level, method, window_bits, memory_level, strategy, version, stream_size,
        )
    }
}

pub unsafe fn inflateInit2_(strm: z_streamp, window_bits: c_int, version: *const c_char, stream_size: c_int) -> c_int {
    // SAFETY: as in `forward`.
    unsafe { libz_rs_sys::inflateInit2_(strm.cast(), window_bits, version, stream_size) }
}

pub fn zlibVersion() -> *const c_char {
    libz_rs_sys::zlibVersion()
}
