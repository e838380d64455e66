// SPDX-License-Identifier: MIT OR Apache-2.0
//! A module of two files, one of which needs the other and is for a device: what packages of modules
//! have to keep together and in order.

use super::{ARCH, Lab, Series};

impl Lab {
    /// `pair/1.0` is built for two kernels, and as if for another machine for the newer one. `disk` are
    /// files of the source's `redhat_driver_disk/`.
    pub fn pair(self, disk: &[(&str, &str)]) -> Self {
        let (old, new) = (Series::Old.release(), Series::New.release());
        let lab = self.kernel(Series::Old).kernel(Series::New).two_modules("pair", &[old, new], disk);
        lab.sh(&format!("cd /var/lib/dkms/pair/1.0/{new} && cp -a {ARCH} other")).succeeds();
        lab
    }

    /// Adds `NAME/1.0` with the modules `NAME_low` and `NAME-high`, and builds it for these kernels.
    pub fn two_modules(self, name: &str, kernels: &[&str], disk: &[(&str, &str)]) -> Self {
        let source = format!("usr/src/{name}-1.0");
        self.write(&format!("{source}/Makefile"), &format!("obj-m := {name}_low.o {name}-high.o\n"));
        self.write(
            &format!("{source}/dkms.conf"),
            &format!(
                "PACKAGE_NAME={name}\nPACKAGE_VERSION=1.0\nBUILT_MODULE_NAME[0]={name}_low\n\
                 BUILT_MODULE_NAME[1]={name}-high\nDEST_MODULE_LOCATION[0]=/updates/dkms\n\
                 DEST_MODULE_LOCATION[1]=/updates/dkms\n"
            ),
        );
        let license = "MODULE_LICENSE(\"GPL\");\n";
        self.write(
            &format!("{source}/{name}_low.c"),
            &format!(
                "#include <linux/module.h>\nint {name}_count(void);\nint {name}_count(void) {{ return 1; }}\n\
                 EXPORT_SYMBOL_GPL({name}_count);\n{license}"
            ),
        );
        self.write(
            &format!("{source}/{name}-high.c"),
            &format!(
                "#include <linux/module.h>\n#include <linux/pci.h>\nextern int {name}_count(void);\n\
                 static int __init start(void) {{ return {name}_count() - 1; }}\n\
                 static void __exit stop(void) {{ }}\nmodule_init(start);\nmodule_exit(stop);\n\
                 static const struct pci_device_id ids[] = {{ {{ PCI_DEVICE(0x10ff, 0x7e57) }}, {{ }} }};\n\
                 MODULE_DEVICE_TABLE(pci, ids);\nMODULE_SOFTDEP(\"post: {name}_extra\");\n\
                 MODULE_DESCRIPTION(\"A pair that belongs together\");\n{license}"
            ),
        );
        for (file, content) in disk {
            self.write(&format!("{source}/redhat_driver_disk/{file}"), content);
        }
        let kernels: String = kernels.iter().map(|kernel| format!(" -k {kernel}")).collect();
        self.sh(&format!("dkms add {name}/1.0; dkms build {name}/1.0{kernels}")).succeeds();
        self
    }
}
