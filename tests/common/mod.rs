// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lab for tests in Rust: scenarios in throw-away roots with real kernels'
//! headers, real tools and the binary under test, in the words of the domain.
//! How roots and layers are made is `tests/lib/lab.sh`'s business alone.
//!
//! `DKMS_BINARY` names the binary (else `build/dkms`, as `make install` puts it);
//! `DKMS_UNDER_TEST=debian` takes Debian's own dkms, which shows what a test that
//! is only about compatible behaviour is worth. `DKMS_TEST_KEEP=1` keeps the roots.
#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "tests may panic, print, and run programs"
)]

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fs_err as fs;

pub mod bash;
pub mod debian;
pub mod disk;
pub mod image_root;
pub mod machine;
pub mod packed;
pub mod pacman;
pub mod pair;
mod ran;
pub mod rpm;
pub mod server;
pub use ran::Ran;

/// As dkms and the kernel call this machine's architecture.
pub const ARCH: &str = env::consts::ARCH;

/// The machine id of every root: the token of its boot loader entries.
pub const MACHINE_ID: &str = "00112233445566778899aabbccddeeff";

/// Which of the archive's kernels: two ABIs of one series, and a newer series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    Old,
    New,
    Next,
}

impl Series {
    /// The kernel release, for instance `6.1.0-56-amd64`.
    ///
    /// # Panics
    /// When the archive carries a single kernel series and `Next` is asked for.
    pub fn release(self) -> &'static str {
        static KERNELS: OnceLock<Vec<(String, String)>> = OnceLock::new();
        release_of(self, KERNELS.get_or_init(|| kernels(&[])))
    }

    /// The same ABI in the cloud flavour, whose image package is a quarter of the size.
    pub fn cloud_release(self) -> &'static str {
        static KERNELS: OnceLock<Vec<(String, String)>> = OnceLock::new();
        release_of(self, KERNELS.get_or_init(|| kernels(&["cloud-amd64"])))
    }
}

fn kernels(flavour: &[&str]) -> Vec<(String, String)> {
    kernels_of(&lab_sh("kernels", flavour))
}

/// Of lines of a role and a release each.
fn kernels_of(listing: &str) -> Vec<(String, String)> {
    listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(role, release)| (role.to_owned(), release.to_owned()))
        .collect()
}

fn release_of(series: Series, kernels: &'static [(String, String)]) -> &'static str {
    let role = format!("{series:?}").to_lowercase();
    match kernels.iter().find(|(name, _)| *name == role) {
        Some((_, release)) => release,
        None => panic!("the archive has no {role} kernel, only {kernels:?}"),
    }
}

/// The sources of a test module, written to `/usr/src/NAME-VERSION`.
#[derive(Clone, Debug)]
pub struct Source {
    body: &'static str,
    conf: String,
}

/// A module that compiles and loads.
pub fn good() -> Source {
    Source { body: "pr_info(\"DKMS-TEST-MODULE is here\\n\"); return 0;", conf: String::new() }
}

/// A module that does not compile, on any kernel.
pub fn broken() -> Source {
    Source { body: "return no_such_kernel_function();", conf: String::new() }
}

/// A module whose initialisation is this.
pub fn code(body: &'static str) -> Source {
    Source { body, conf: String::new() }
}

impl Source {
    /// Adds a line to dkms.conf.
    pub fn conf(mut self, line: &str) -> Self {
        self.conf.push_str(line);
        self.conf.push('\n');
        self
    }

    /// The module's own word that the machine does not boot without it.
    pub fn critical(self) -> Self {
        self.conf("BOOT_CRITICAL=\"yes\"")
    }

    /// The initramfs is to be remade when this module is installed.
    pub fn remakes_initrd(self) -> Self {
        self.conf("REMAKE_INITRD=\"yes\"")
    }
}

/// One throw-away root and what has been put into it.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    /// What `lab_root` was given so far.
    options: Vec<String>,
    /// An ESP (a directory of its own) is mounted at /boot/efi.
    esp: bool,
}

impl Lab {
    /// A root with kmod, a toolchain and the dkms under test, for a Debian system
    /// without any kernel or known boot loader.
    pub fn new() -> Self {
        let lab = Self::without_dkms();
        if under_test_is_debians() {
            return lab.packages(&["dkms"]);
        }
        // Once for all tests of this process: never a binary older than the sources.
        static BUILT: OnceLock<()> = OnceLock::new();
        BUILT.get_or_init(|| drop(lab_sh("build", &[] as &[&str])));
        lab_sh("install", &[&lab.dir]);
        lab
    }

    /// The same before dkms is installed.
    pub fn without_dkms() -> Self {
        let lab = Self::empty().layer(lab_sh("tools", &[] as &[&str]));
        lab.write("etc/machine-id", &format!("{MACHINE_ID}\n"));
        lab
    }

    /// A directory for a root, named after the test.
    fn empty() -> Self {
        static BLOCKED: OnceLock<Option<String>> = OnceLock::new();
        let blocked = BLOCKED.get_or_init(|| {
            let answer = lab_sh_output("blocked", &[] as &[&str]);
            answer.status.success().then(|| text(&answer.stdout))
        });
        if let Some(reason) = blocked {
            panic!("the lab cannot work here: {reason}");
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("test").replace("::", "-");
        Self {
            dir: PathBuf::from(lab_sh("new", &[name.trim_matches('-')]).trim()),
            options: Vec::new(),
            esp: false,
        }
    }

    fn layer(self, directory: String) -> Self {
        self.option("--layer", directory.trim())
    }

    fn option(mut self, option: &str, value: &str) -> Self {
        self.options.extend([option.to_owned(), value.to_owned()]);
        let mut arguments = vec![self.dir.as_os_str()];
        arguments.extend(self.options.iter().map(OsStr::new));
        lab_sh("root", &arguments);
        self
    }

    /// These packages, and nothing that they depend on.
    pub fn packages(self, packages: &[&str]) -> Self {
        let mut arguments = vec!["--only", packages[0]];
        arguments.extend(packages);
        let directory = lab_sh("layer", &arguments);
        self.layer(directory)
    }

    /// These packages with what they depend on and this machine does not have.
    pub fn packages_and_dependencies(self, packages: &[&str]) -> Self {
        let mut arguments = vec![packages[0]];
        arguments.extend(packages);
        let directory = lab_sh("layer", &arguments);
        self.layer(directory)
    }

    /// The real headers of a kernel.
    pub fn headers(self, release: &str) -> Self {
        let directory = lab_sh("headers", &[release]);
        self.layer(directory)
    }

    /// The real headers of the same ABI for another of Debian's architectures, and their release.
    /// What builds is in this machine's own headers packages: [`Self::headers`] has to come, too.
    pub fn foreign_headers(self, release: &str, arch: &str) -> (Self, String) {
        let answer = lab_sh("foreign_headers", &[release, arch]);
        let (foreign, directory) = answer.split_once(' ').unwrap();
        (self.layer(directory.to_owned()), foreign.to_owned())
    }

    /// The real image package of a kernel: vmlinuz and modules.
    pub fn image(self, release: &str) -> Self {
        let directory = lab_sh("image", &[release]);
        // /boot is not an overlay: what the package has there is copied.
        for file in fs::read_dir(Path::new(directory.trim()).join("boot")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), self.path("boot").join(file.file_name())).unwrap();
        }
        self.layer(directory)
    }

    /// A directory of this machine's, seen inside at another place: what several roots share.
    pub fn shared(self, directory: &Path, inside: &str) -> Self {
        self.option("--bind", &format!("{}:{inside}", directory.display()))
    }

    /// Nothing that compiles: no compiler, no make.
    pub fn without_compiler(self) -> Self {
        self.sh("rm -f /usr/bin/{*gcc*,*clang*,cc,c89,c99,make,gmake,as,ld,ld.*,*-linux-gnu-{as,ld,ld.*}} /usr/local/bin/*cc")
            .succeeds();
        self.sh("gcc --version").exits(127);
        self
    }

    /// A stand-in for the image: an empty module tree and a vmlinuz of plain text.
    pub fn image_stand_in(self, release: &str) -> Self {
        lab_sh("kernel", &[self.dir.as_os_str(), OsStr::new(release)]);
        self
    }

    /// Real headers, and a stand-in for the image.
    pub fn kernel(self, series: Series) -> Self {
        self.headers(series.release()).image_stand_in(series.release())
    }

    /// Sources in `/usr/src`, not yet known to dkms.
    pub fn source(self, name: &str, version: &str, source: Source) -> Self {
        let directory = format!("usr/src/{name}-{version}");
        let Source { body, conf } = source;
        self.write(&format!("{directory}/Makefile"), &format!("obj-m := {name}.o\n"));
        self.write(
            &format!("{directory}/dkms.conf"),
            &format!(
                "PACKAGE_NAME=\"{name}\"\nPACKAGE_VERSION=\"{version}\"\n\
                 BUILT_MODULE_NAME[0]=\"{name}\"\nDEST_MODULE_LOCATION[0]=\"/updates/dkms\"\n\
                 AUTOINSTALL=\"yes\"\n{conf}"
            ),
        );
        self.write(
            &format!("{directory}/{name}.c"),
            &format!(
                "#include <linux/module.h>\n\
                 static int __init start(void) {{ {body} }}\n\
                 static void __exit stop(void) {{ }}\n\
                 module_init(start);\nmodule_exit(stop);\n\
                 MODULE_LICENSE(\"GPL\");\nMODULE_VERSION(\"{version}\");\n"
            ),
        );
        self
    }

    /// Sources that dkms knows: `dkms add` has run.
    pub fn registered(self, name: &str, version: &str, source: Source) -> Self {
        let lab = self.source(name, version, source);
        lab.run(["add", &format!("{name}/{version}")]).succeeds();
        lab
    }

    /// `[boot] critical` of the policy.
    pub fn critical(self, modules: &[&str]) -> Self {
        self.write("etc/dkms/policy.toml", &format!("[boot]\ncritical = {modules:?}\n"));
        self
    }

    /// A program or hook that takes the place of a real one; say so in `script`'s output.
    pub fn executable(self, path: &str, script: &str) -> Self {
        self.write(path, script);
        let file = self.path(path);
        let mut permissions = fs::metadata(&file).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(&file, permissions).unwrap();
        self
    }

    /// `update-initramfs` stand-in: a real (gzip, newc) image of the kernel's
    /// dkms modules, and one line per call in `/var/log/initramfs.calls`.
    pub fn initramfs_stand_in(self) -> Self {
        self.packages(&["busybox-static"])
            .executable("usr/sbin/update-initramfs", include_str!("../lib/stand-ins/update-initramfs"))
    }

    /// How often the stand-in was called for a kernel.
    pub fn initramfs_calls(&self, release: &str) -> usize {
        let calls = self.path("var/log/initramfs.calls");
        if !calls.exists() {
            return 0;
        }
        let calls = fs::read_to_string(calls).unwrap();
        calls.lines().filter(|line| line.contains(release)).count()
    }

    /// The real kernel-install writing BLS entries to `/boot`, the kernel-install
    /// plugins as installed, and a stand-in that puts an initramfs into staging.
    pub fn boot_loader_spec(self) -> Self {
        self.packages_and_dependencies(&["systemd"]).packages(&["busybox-static"]).boot_loader_spec_settings()
    }

    /// The same where systemd and busybox are there.
    pub fn boot_loader_spec_settings(self) -> Self {
        self.write("etc/kernel/cmdline", "root=LABEL=lab ro quiet\n");
        self.write("etc/kernel/install.conf", "layout=bls\n");
        self.write("boot/loader/entries.srel", "type1\n");
        fs::create_dir_all(self.path("boot/loader/entries")).unwrap();
        fs::create_dir_all(self.path(&format!("boot/{MACHINE_ID}"))).unwrap();
        self.executable(
            "etc/kernel/install.d/50-initramfs-stand-in.install",
            include_str!("../lib/stand-ins/initramfs.install"),
        )
    }

    /// The real systemd-boot with Debian's hooks for it, installed by the real
    /// bootctl into an ESP that is a plain directory.
    pub fn systemd_boot(self) -> Self {
        let esp = self.dir.join("esp");
        fs::create_dir_all(&esp).unwrap();
        self.write("etc/kernel/cmdline", "root=LABEL=lab ro quiet\n");
        let mut lab = self
            .packages_and_dependencies(&["systemd-boot"])
            .option("--bind", &format!("{}:/boot/efi", esp.display()));
        lab.esp = true;
        lab.sh("bootctl --esp-path=/boot/efi --no-variables install").succeeds();
        lab
    }

    /// What else Debian has in postinst.d, as stand-ins that leave a trace: the
    /// initramfs step, and a boot loader update whose loader nobody knows.
    pub fn debian_hook_stand_ins(self) -> Self {
        self.initramfs_stand_in()
            .executable(
                "etc/kernel/postinst.d/initramfs-tools",
                include_str!("../lib/stand-ins/postinst-initramfs"),
            )
            .executable(
                "etc/kernel/postinst.d/zz-update-grub",
                include_str!("../lib/stand-ins/postinst-boot-loader"),
            )
    }

    // ── acting ──

    /// What linux-image's maintainer script runs after unpacking the kernel.
    pub fn image_postinst_hooks(&self, release: &str) -> Ran {
        self.sh(&format!(
            "DEB_MAINT_PARAMS=\"'configure' ''\" run-parts --report --exit-on-error \
             --arg={release} --arg=/boot/vmlinuz-{release} /etc/kernel/postinst.d"
        ))
    }

    /// What linux-headers' maintainer script runs.
    pub fn header_postinst_hooks(&self, release: &str) -> Ran {
        self.sh(&format!(
            "DEB_MAINT_PARAMS=\"'configure' ''\" run-parts --report --exit-on-error \
             --arg={release} /etc/kernel/header_postinst.d"
        ))
    }

    /// What linux-image's maintainer script runs before removing the kernel.
    pub fn image_prerm_hooks(&self, release: &str) -> Ran {
        self.sh(&format!(
            "DEB_MAINT_PARAMS=\"'remove'\" run-parts --report --exit-on-error \
             --arg={release} --arg=/boot/vmlinuz-{release} /etc/kernel/prerm.d"
        ))
    }

    /// The real `kernel-install add`.
    pub fn kernel_install_add(&self, release: &str) -> Ran {
        self.sh(&format!("kernel-install add {release} /boot/vmlinuz-{release}"))
    }

    /// Whether the stand-in for the boot loader update was reached for a kernel.
    pub fn boot_loader_updated(&self, release: &str) -> bool {
        fs::read_to_string(self.path("var/log/boot-loader.calls"))
            .is_ok_and(|calls| calls.lines().any(|line| line == release))
    }

    /// Puts the sources right: the module compiles from now on.
    pub fn mend(&self, name: &str, version: &str) {
        let file = format!("usr/src/{name}-{version}/{name}.c");
        let source = fs::read_to_string(self.path(&file)).unwrap();
        let mended = source.replace(broken().body, good().body);
        assert_ne!(source, mended, "{name} was not broken");
        self.write(&file, &mended);
    }

    /// Runs `dkms` with these arguments.
    pub fn run<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        let mut command = vec!["dkms"];
        command.extend(arguments);
        self.enter(&command)
    }

    /// Runs a shell script (`bash -eu`) inside.
    pub fn sh(&self, script: &str) -> Ran {
        self.enter(&["bash", "-euc", script])
    }

    /// Runs a program inside, without a shell.
    pub fn enter(&self, command: &[&str]) -> Ran {
        // bootctl would look for a partition of the right type.
        let relaxed: &[&str] = if self.esp { &["env", "SYSTEMD_RELAX_ESP_CHECKS=1"] } else { &[] };
        let output = Command::new(self.dir.join("enter")).args(relaxed).args(command).output().unwrap();
        Ran::new(shell_words::join(command), &self.dir, output)
    }

    // ── looking ──

    /// Where a file written inside is seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.join("root").join(inside.trim_start_matches('/'))
    }

    /// Writes a file, making its directories.
    pub fn write(&self, inside: &str, content: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Fails unless `dkms status` calls it installed, its file is there, and the
    /// real modprobe finds it for that kernel.
    pub fn assert_installed(&self, name: &str, version: &str, release: &str) {
        let line = format!("{name}/{version}, {release}, {ARCH}: installed");
        self.run(["status"]).succeeds().says(&line);
        let module = name.replace('-', "_");
        self.sh(&format!("modprobe --show-depends -S {release} {module}"))
            .succeeds()
            .says(&format!("/lib/modules/{release}/updates/dkms/{module}.ko"));
    }

    /// Fails if anything of the module is left in that kernel's install tree.
    pub fn assert_not_installed(&self, module: &str, release: &str) {
        let found = self.sh(&format!("find /lib/modules/{release}/ -name '{module}.ko*'"));
        assert_eq!(found.stdout().trim(), "", "left over after {found}");
        let status = self.run(["status"]);
        let line = status
            .stdout()
            .lines()
            .find(|line| line.contains(release) && line.contains(": installed"))
            .map(str::to_owned);
        assert!(
            line.as_deref().is_none_or(|line| !line.starts_with(&format!("{module}/"))),
            "still listed: {status}"
        );
    }

    /// Where entries and their kernels are, seen from outside.
    fn boot_root(&self) -> PathBuf {
        if self.esp { self.dir.join("esp") } else { self.path("boot") }
    }

    /// The boot loader entries (BLS) by file name, without `.conf`.
    pub fn boot_entries(&self) -> Vec<String> {
        let Ok(directory) = fs::read_dir(self.boot_root().join("loader/entries")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = directory
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter_map(|name| name.strip_suffix(".conf").map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    /// Fails unless there is an entry for that kernel.
    pub fn assert_boots(&self, release: &str) {
        let entry = format!("{MACHINE_ID}-{release}");
        assert!(self.boot_entries().contains(&entry), "no entry for {release}: {self}");
    }

    /// Fails if anything of a trial build has outlived it.
    #[track_caller]
    pub fn assert_no_trial_left(&self) {
        self.sh("ls -A /var/tmp; grep dkms-trial /proc/self/mountinfo || true")
            .succeeds()
            .says_nothing_of("dkms-trial");
    }

    /// Fails if there is an entry, or anything of the kernel below its directory.
    pub fn assert_withheld(&self, release: &str) {
        let entry = format!("{MACHINE_ID}-{release}");
        assert!(!self.boot_entries().contains(&entry), "an entry for {release}: {self}");
        let kernel = self.boot_root().join(MACHINE_ID).join(release);
        let left: Vec<_> = fs::read_dir(&kernel).map(Iterator::collect).unwrap_or_default();
        assert!(left.is_empty(), "left in {}: {left:?}", kernel.display());
    }
}

impl fmt::Display for Lab {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "root {}, entries {:?}", self.dir.display(), self.boot_entries())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() || env::var_os("DKMS_TEST_KEEP").is_some() {
            println!("kept: {}/enter bash", self.dir.display());
        } else {
            lab_sh("drop", &[&self.dir]);
        }
    }
}

/// Whether the tests run against Debian's dkms instead of ours.
pub fn under_test_is_debians() -> bool {
    env::var_os("DKMS_UNDER_TEST").is_some_and(|value| value == "debian")
}

/// The downloaded .deb of a package.
pub fn deb(package: &str) -> PathBuf {
    PathBuf::from(lab_sh("package", &[package]).trim())
}

/// Where throw-away roots and disks are kept.
fn roots() -> PathBuf {
    let roots = env::var_os("DKMS_TEST_ROOTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-roots"),
        |roots| env::current_dir().unwrap().join(roots),
    );
    fs::create_dir_all(&roots).unwrap();
    roots
}

/// The archive that `make clear` makes of the dkms under test, made anew.
pub fn our_bundle() -> PathBuf {
    PathBuf::from(lab_sh("bundle", &[] as &[&str]).trim())
}

fn lab_sh<A: AsRef<OsStr>>(function: &str, arguments: &[A]) -> String {
    let output = lab_sh_output(function, arguments);
    assert!(
        output.status.success(),
        "lab.sh {function} {:?}: {}",
        arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn lab_sh_output<A: AsRef<OsStr>>(function: &str, arguments: &[A]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lib/lab.sh");
    Command::new(script).arg(function).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
