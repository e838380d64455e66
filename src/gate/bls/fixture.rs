// SPDX-License-Identifier: MIT OR Apache-2.0
//! A made-up machine with a partition for boot loaders, for tests.

use fs_err as fs;
use tempfile::TempDir;

use super::menu::VENDOR;
use crate::tree::Tree;

pub(in crate::gate) struct Partition {
    dir: TempDir,
    pub tree: Tree,
}

impl Partition {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { tree: Tree::at(dir.path()), dir }
    }

    /// What kernel-install makes of a kernel.
    pub fn entry(&self, release: &str) {
        let text = format!("version {release}\nsort-key debian\nlinux /m/{release}/linux\n");
        self.write(&format!("boot/efi/m/{release}/linux"), b"");
        self.write(&format!("boot/efi/loader/entries/m-{release}.conf"), text.as_bytes());
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn variable(&self, name: &str, value: &str) {
        let mut content = vec![6, 0, 0, 0];
        content.extend(value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        self.write(&format!("sys/firmware/efi/efivars/{name}-{VENDOR}"), &content);
    }
}
