//! Archives: reading ends, sizes are bounded, and content is never longer than its header says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_builder::layer::read::TarReader;
use std::io::Read;

fuzz_target!(|data: &[u8]| {
    let mut reader = TarReader::new(data);
    let mut entries = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        entries += 1;
        assert!(entries <= data.len() / 512 + 1);
        let mut content = Vec::new();
        if reader.content().read_to_end(&mut content).is_ok() {
            assert_eq!(content.len() as u64, entry.size);
        }
    }
});
