#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| happy_fuzz::cast(data));
