// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that are about to get a kernel: each has run the older one with the module that it
//! needs to boot, for which the newer one has another interface. What becomes of it is seen by
//! booting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::disk::{Base, Disk, Loader, Template};

/// Tells on the serial line whether the machine has what it cannot do without.
const AT_BOOT: &str = r#"#!/bin/sh
if modprobe crit && grep -q '^crit ' /proc/modules; then
	echo "CRITICAL-OK $(uname -r)"
else
	echo "CRITICAL-FAIL $(uname -r)"
fi
if [ -x /root/then ]; then /root/then; fi
"#;

/// A machine that has run the older kernel with the module that it needs to boot, and is about to
/// get the newer one, for which that module does not compile.
pub struct Machine {
    pub disk: Disk,
    pub old: String,
    pub new: String,
}

/// What every copy of a machine begins from.
type Prepared = Arc<(Template, String, String)>;

/// By what it is made of, and whether it holds a kernel.
type Known = Mutex<BTreeMap<(Base, bool), Arc<OnceLock<Prepared>>>>;

impl Machine {
    pub fn new(base: Base) -> Self {
        Self::copied(&Self::remembered((base, false), || Self::prepare(base)))
    }

    /// The same with the new kernel installed and held.
    pub fn held(base: Base) -> Self {
        Self::copied(&Self::remembered((base, true), || {
            let machine = Self::new(base);
            machine.install_new().succeeds();
            machine
        }))
    }

    fn remembered(what: (Base, bool), make: impl FnOnce() -> Self) -> Prepared {
        static KNOWN: OnceLock<Known> = OnceLock::new();
        let cell = {
            let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(what).or_default())
        };
        let prepared = cell.get_or_init(|| {
            let machine = make();
            Arc::new((Template::from(machine.disk), machine.old, machine.new))
        });
        Arc::clone(prepared)
    }

    fn copied(prepared: &Prepared) -> Self {
        let (template, old, new) = prepared.as_ref();
        Self { disk: template.disk(), old: old.clone(), new: new.clone() }
    }

    fn prepare(base: Base) -> Self {
        let disk = Disk::new(base);
        let kernels = disk.kernels();
        let [old, new] = kernels.as_slice() else { panic!("two kernels expected, not {kernels:?}") };
        // The headers stay, which depend on their kernel since trixie: as if they had come just
        // before it.
        disk.sh(&format!("dpkg --force-depends --purge linux-image-cloud-amd64 linux-image-{new}"))
            .succeeds();
        let disk = disk.install_dkms();
        disk.sh(&format!(
            "{}\n{}",
            module("crit", "BOOT_CRITICAL=yes", new),
            write("/root/at-boot", AT_BOOT)
        ))
        .succeeds();
        disk.sh(&format!("chmod 755 /root/at-boot; dkms add crit/1.0; dkms autoinstall -k {old}")).succeeds();
        let machine = Self { disk, old: old.clone(), new: new.clone() };
        machine.gate_says(&format!("{old}: proven"));
        assert_eq!(machine.disk.predicted(), machine.old);
        machine
    }

    /// Its own maintainer scripts drive the hooks.
    pub fn install_new(&self) -> super::Ran {
        self.disk.sh("dpkg -i /root/debs/linux-image-*.deb")
    }

    /// The module compiles for every kernel from now on.
    pub fn mend(&self) {
        self.disk.sh("sed -i '/^#error/d' /usr/src/crit-1.0/crit.c").succeeds();
    }

    pub fn gate_says(&self, what: &str) {
        self.disk.sh("dkms gate").succeeds().says(what);
    }

    /// What a user does who has updated something else.
    pub fn update_the_loader(&self) -> super::Ran {
        match self.disk.loader() {
            Loader::Grub => self.disk.sh("update-grub"),
            Loader::SystemdBoot => self.disk.sh("update-initramfs -u -k all"),
        }
    }

    #[track_caller]
    pub fn assert_stays_on_old(&self) {
        assert_eq!(self.disk.predicted(), self.old, "the hold is lost: {}", self.disk);
    }

    /// What the loader would do if there were no hold of ours.
    #[track_caller]
    pub fn assert_new_without_gate(&self) {
        self.disk.sh("touch /etc/dkms/no-gate").succeeds();
        self.update_the_loader().succeeds();
        self.disk.sh("rm /etc/dkms/no-gate").succeeds();
        assert_eq!(self.disk.predicted(), self.new, "held by something else: {}", self.disk);
    }

    #[track_caller]
    pub fn boots_old_with_module(&self) {
        let booted = self.disk.boots();
        assert_eq!(booted.release, self.old);
        booted.says(&format!("CRITICAL-OK {}", self.old));
    }

    #[track_caller]
    pub fn boots_new(&self, how: &str) {
        let booted = self.disk.boots();
        assert_eq!(booted.release, self.new);
        booted.says(&format!("CRITICAL-{how} {}", self.new));
    }
}

/// A script that writes a file.
pub fn write(path: &str, content: &str) -> String {
    format!("cat >{path} <<'END'\n{content}END\n")
}

/// A script that writes the sources of a module that does not compile for one kernel.
pub fn module(name: &str, conf: &str, broken_for: &str) -> String {
    let source = format!("/usr/src/{name}-1.0");
    let makefile = format!(
        "obj-m := {name}.o\nccflags-$(if $(filter {broken_for},$(KERNELRELEASE)),y) += -DCHANGED_INTERFACE\n"
    );
    let conf = format!(
        "PACKAGE_NAME={name}\nPACKAGE_VERSION=1.0\nBUILT_MODULE_NAME[0]={name}\n\
         DEST_MODULE_LOCATION[0]=/updates/dkms\nAUTOINSTALL=yes\n{conf}\n"
    );
    let code = format!(
        "#include <linux/module.h>\n#ifdef CHANGED_INTERFACE\n#error {name} knows nothing of this kernel\n#endif\n\
         static int __init start(void) {{ return 0; }}\nstatic void __exit stop(void) {{ }}\n\
         module_init(start);\nmodule_exit(stop);\nMODULE_LICENSE(\"GPL\");\n"
    );
    [
        format!("mkdir {source}\n"),
        write(&format!("{source}/Makefile"), &makefile),
        write(&format!("{source}/dkms.conf"), &conf),
        write(&format!("{source}/{name}.c"), &code),
    ]
    .concat()
}

/// Lets builds reach what is outside of their directories.
pub const OUTSIDE: &str = "mkdir -p /etc/dkms/policy.d; \
                           printf '[build]\\nsandbox = \"off\"\\n' >/etc/dkms/policy.d/outside.toml\n";

/// Ends the dkms that runs it, and no other.
pub const KILLER: &str = r#"#!/bin/bash
pid=$$
while [ "$pid" -gt 1 ] && [ "$(cat /proc/$pid/comm)" != dkms ]; do
	pid=$(sed -n 's/^PPid:\t//p' /proc/$pid/status)
done
[ "$pid" -gt 1 ] && kill -KILL "$pid"
"#;
