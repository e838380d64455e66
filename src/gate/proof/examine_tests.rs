// SPDX-License-Identifier: MIT OR Apache-2.0
//! Made-up kernels and modules, and what the examiner makes of them.

use fs_err as fs;
use rstest::rstest;

use super::*;
use crate::conf::compressors::Compressors;
use crate::module_file::fixture::Made;

/// A root with the kernel 6.1-1.
struct Machine {
    _dir: tempfile::TempDir,
    tree: Tree,
    kernel: KernelRelease,
}

const SYMVERS: &str = "0x00000001\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n\
                       0x00000002\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n\
                       0x00000009\tspl_do\tfs/spl/spl\tEXPORT_SYMBOL\t\n";
const CONFIG: &str = "CONFIG_X86_64=y\nCONFIG_SMP=y\nCONFIG_MODULE_UNLOAD=y\nCONFIG_MODVERSIONS=y\n";

impl Machine {
    /// With headers, and a module that was built with the kernel.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let machine = Self { _dir: dir, tree, kernel: "6.1-1".parse().unwrap() };
        machine
            .with("build/Module.symvers", SYMVERS.as_bytes())
            .with("build/.config", CONFIG.as_bytes())
            .with("kernel/own.ko", &own().build())
            .with("modules.dep", b"")
            .depends("kernel/own.ko", "")
    }

    /// A file below the kernel's directory, or another one.
    fn with(self, path: &str, content: &[u8]) -> Self {
        let path = match path.starts_with('/') {
            true => self.tree.path(path),
            false => self.tree.kernel_dir(&self.kernel).join(path),
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn without(self, path: &str) -> Self {
        fs::remove_file(self.tree.kernel_dir(&self.kernel).join(path)).unwrap();
        self
    }

    /// A line of modules.dep.
    fn depends(self, module: &str, needs: &str) -> Self {
        let path = self.tree.kernel_dir(&self.kernel).join("modules.dep");
        let lines = fs::read_to_string(&path).unwrap() + &format!("{module}: {needs}\n");
        fs::write(path, lines).unwrap();
        self
    }

    /// A module that needs nothing of another.
    fn module(self, name: &str, made: &Made) -> Self {
        let path = format!("updates/{name}.ko");
        self.with(&path, &made.build()).depends(&path, "")
    }

    /// Problems and warnings, without the directory of the kernel.
    fn look(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let kernel_dir = format!("{}/", self.tree.kernel_dir(&self.kernel).display());
        let finding = Examiner::new(&self.tree, &self.kernel).unwrap().module(name);
        let short = |words: Vec<String>| words.iter().map(|text| text.replace(&kernel_dir, "")).collect();
        (short(finding.problems), short(finding.warnings))
    }

    fn expect_fine(&self, name: &str) {
        assert_eq!(self.look(name), (vec![], vec![]));
    }

    fn expect_problem(&self, name: &str, want: &str) {
        let (problems, warnings) = self.look(name);
        assert_eq!((problems.as_slice(), warnings.len()), ([want.to_owned()].as_slice(), 0));
    }

    fn expect_warning(&self, name: &str, want: &str) {
        let (problems, warnings) = self.look(name);
        assert_eq!((problems.len(), warnings.as_slice()), (0, [want.to_owned()].as_slice()));
    }
}

/// Of the kernel that the machine has.
fn made(name: &str) -> Made {
    Made::nameless()
        .info("name", name)
        .info("vermagic", "6.1-1 SMP mod_unload modversions ")
        .gpl()
        .version("module_layout", 1)
}

fn own() -> Made {
    made("own").info("intree", "Y")
}

fn spl() -> Made {
    made("spl").exports("spl_do", 5)
}

fn zfs() -> Made {
    made("zfs").needs("printk").version("printk", 2).needs("spl_do").version("spl_do", 5)
}

/// zfs over spl, as depmod would say it.
fn with_zfs(machine: Machine, spl: &Made) -> Machine {
    machine
        .module("spl", spl)
        .with("updates/zfs.ko", &zfs().build())
        .depends("updates/zfs.ko", "updates/spl.ko")
}

#[test]
fn a_module_and_what_it_needs_are_found_fit() {
    let machine = with_zfs(Machine::new(), &spl());
    machine.expect_fine("zfs");
    let finding = Examiner::new(&machine.tree, &machine.kernel).unwrap().module("zfs");
    let updates = machine.tree.kernel_dir(&machine.kernel).join("updates");
    assert_eq!(finding.files, [updates.join("zfs.ko"), updates.join("spl.ko")]);
    assert!(!finding.builtin);
}

#[test]
fn a_module_falls_with_what_it_needs() {
    let broken = with_zfs(Machine::new(), &spl().needs("nowhere"));
    broken.expect_problem(
        "zfs",
        "updates/zfs.ko cannot be loaded: it needs updates/spl.ko: \
         it needs what the kernel does not have: nowhere",
    );
    let gone = with_zfs(Machine::new(), &spl()).without("updates/spl.ko");
    let (problems, _) = gone.look("zfs");
    assert!(
        problems.iter().any(|problem| problem.ends_with("needs updates/spl.ko: it is not there")),
        "{problems:?}"
    );
}

#[test]
fn the_versions_of_what_is_really_there_count() {
    // Module.symvers lists a spl of the kernel's own with another version: it is not the one.
    let machine = with_zfs(Machine::new(), &made("spl").exports("spl_do", 6));
    machine.expect_problem(
        "zfs",
        "updates/zfs.ko cannot be loaded: it was built for other versions of what it uses: spl_do",
    );
}

#[test]
fn what_is_not_loaded_along_is_not_there() {
    Machine::new().module("zfs", &zfs()).expect_problem(
        "zfs",
        "updates/zfs.ko cannot be loaded: it needs what no module has that would be loaded before it: spl_do of spl",
    );
}

#[test]
fn a_name_nobody_has_is_a_problem_and_one_in_the_kernel_is_not() {
    let machine = Machine::new().with("modules.builtin", b"kernel/fs/ext4.ko\n");
    machine.expect_problem("nothing", "kernel 6.1-1 has no module nothing");
    machine.expect_fine("ext4");
}

/// Which vermagic the kernel wants is told by its own modules first.
#[rstest]
#[case::same(own(), "6.1-1 SMP mod_unload modversions ", true)]
#[case::another_release(own(), "6.1-2 SMP mod_unload modversions ", true)]
#[case::other_flags(own(), "6.1-1 SMP preempt mod_unload modversions ", false)]
#[case::own_says_otherwise(
    Made::nameless().info("name", "own").info("intree", "Y").info("vermagic", "6.1-1 SMP secret "),
    "6.1-1 SMP secret ", true
)]
#[case::not_of_the_kernels_own(
    Made::nameless().info("name", "own").info("vermagic", "6.1-1 SMP secret "), "6.1-1 SMP secret ", false
)]
fn the_vermagic_is_as_that_of_the_kernels_own_modules(
    #[case] own: Made,
    #[case] vermagic: &str,
    #[case] fits: bool,
) {
    let foo = Made::nameless().info("name", "foo").info("vermagic", vermagic).version("module_layout", 1);
    let machine = Machine::new().with("kernel/own.ko", &own.build()).module("foo", &foo);
    let (problems, _) = machine.look("foo");
    assert_eq!(problems.is_empty(), fits, "{problems:?}");
}

#[test]
fn without_a_list_of_symbols_it_could_not_be_told() {
    let machine = Machine::new().without("build/Module.symvers");
    machine.module("foo", &made("foo").needs("printk").version("printk", 7)).expect_warning(
        "foo",
        "updates/foo.ko: could not tell whether the kernel has printk, because there is no Module.symvers of the \
         kernel (install the headers of kernel 6.1-1)",
    );
}

#[test]
fn a_list_of_another_build_is_not_believed() {
    let other = Made::nameless()
        .info("name", "own")
        .info("intree", "Y")
        .info("vermagic", "6.1-1 SMP mod_unload modversions ")
        .version("module_layout", 77);
    let foo = Made::nameless()
        .info("name", "foo")
        .info("vermagic", "6.1-1 SMP mod_unload modversions ")
        .version("module_layout", 77)
        .needs("new");
    let machine = Machine::new().with("kernel/own.ko", &other.build()).module("foo", &foo);
    machine.expect_warning(
        "foo",
        "updates/foo.ko: could not tell whether the kernel has new, because build/Module.symvers is of another \
         build of the kernel than its modules",
    );
}

#[test]
fn the_kernels_own_modules_tell_the_version_of_what_every_module_uses() {
    let foo = Made::nameless()
        .info("name", "foo")
        .info("vermagic", "6.1-1 SMP mod_unload modversions ")
        .version("module_layout", 77);
    Machine::new().without("build/Module.symvers").module("foo", &foo).expect_problem(
        "foo",
        "updates/foo.ko cannot be loaded: it was built for other versions of what it uses: module_layout",
    );
}

#[test]
fn a_module_that_came_with_the_kernel_is_not_asked_for_its_symbols() {
    let machine = Machine::new().without("build/Module.symvers");
    machine.module("foo", &made("foo").info("intree", "Y").needs("printk")).expect_fine("foo");
}

#[rstest]
#[case::with_the_kernel("symvers.gz", &gzip(SYMVERS))]
#[case::in_boot("/boot/symvers-6.1-1.gz", &gzip(SYMVERS))]
#[case::names_alone("/boot/System.map-6.1-1", b"ffffffff82000000 r __ksymtab_printk\n")]
fn other_lists_do_as_well(#[case] path: &str, #[case] content: &[u8]) {
    let machine = Machine::new().without("build/Module.symvers").with(path, content);
    let machine = machine.module("foo", &made("foo").needs("printk").version("printk", 2));
    machine.expect_fine("foo");
    machine.module("bar", &made("bar").needs("nowhere")).expect_problem(
        "bar",
        "updates/bar.ko cannot be loaded: it needs what the kernel does not have: nowhere",
    );
}

fn gzip(text: &str) -> Vec<u8> {
    Compression::Gzip.compress(text.as_bytes().to_vec(), &Compressors::default()).unwrap()
}

#[test]
fn of_an_alias_one_module_has_to_do() {
    let machine = Machine::new()
        .module("bad", &made("bad").needs("nowhere"))
        .module("good", &made("good"))
        .with("modules.alias", b"alias crc bad\nalias crc good\nalias only bad\n");
    machine.expect_fine("crc");
    machine.expect_problem(
        "only",
        "updates/bad.ko cannot be loaded: it needs what the kernel does not have: nowhere",
    );
}

#[rstest]
#[case::modprobe_d("/etc/modprobe.d/f.conf", "blacklist foo", "/etc/modprobe.d/f.conf says: blacklist foo")]
#[case::command_line(
    "/etc/kernel/cmdline",
    "module_blacklist=bar,foo",
    "/etc/kernel/cmdline says: module_blacklist=bar,foo"
)]
fn what_keeps_a_module_from_being_loaded_is_a_warning(
    #[case] path: &str,
    #[case] text: &str,
    #[case] want: &str,
) {
    let machine = Machine::new().module("foo", &made("foo")).with(path, text.as_bytes());
    machine.expect_warning("foo", &format!("foo may not be loaded: {want}"));
}

#[test]
fn a_wish_for_a_module_that_is_not_there_is_a_warning() {
    let machine =
        Machine::new().module("foo", &made("foo")).with("modules.softdep", b"softdep foo pre: own bar\n");
    machine.expect_warning("foo", "foo asks for bar to be loaded before it, which kernel 6.1-1 lacks");
}

/// Nobody has to be asked for it.
#[rstest]
#[case::as_the_kernels_own(Some(Compression::Xz), "")]
#[case::by_the_kernel(None, "CONFIG_MODULE_DECOMPRESS=y\nCONFIG_MODULE_COMPRESS_XZ=y\n")]
fn a_compression_that_works_is_no_matter(#[case] of_own: Option<Compression>, #[case] config: &str) {
    let machine = Machine::new().with("build/.config", format!("{CONFIG}{config}").as_bytes());
    let machine = match of_own {
        Some(compression) => machine
            .with("kernel/own.ko", &compression.compress(own().build(), &Compressors::default()).unwrap()),
        None => machine,
    };
    let foo = Compression::Xz.compress(made("foo").build(), &Compressors::default()).unwrap();
    machine.with("updates/foo.ko.xz", &foo).depends("updates/foo.ko.xz", "").expect_fine("foo");
}

#[test]
fn an_unsigned_module_is_refused_where_signatures_are_enforced() {
    let config = format!("{CONFIG}CONFIG_MODULE_SIG=y\n");
    let machine = Machine::new()
        .with("build/.config", config.as_bytes())
        .with("/etc/default/grub", b"GRUB_CMDLINE_LINUX=\"module.sig_enforce=1\"\n")
        .module("foo", &made("foo"));
    machine.expect_problem(
        "foo",
        "updates/foo.ko cannot be loaded: it is not signed, and kernel 6.1-1 takes signed modules only \
         (module.sig_enforce=1 in /etc/default/grub; once it can be signed, build and install it with --force)",
    );
}
