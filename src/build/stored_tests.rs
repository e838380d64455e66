// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine on which one thing at a time changes: builds that may differ have keys that do.

use super::*;
use crate::build::jobs::Jobs;
use crate::build::symbols::KernelSymbols;
use crate::conf::compressors::Compressors;
use crate::conf::policy::Policy;
use crate::store::remote::Remotes;
use crate::sys::report::Report;
use crate::tree::registered::Scope;
use fs_err::os::unix::fs::symlink;
use rstest::rstest;

const CONF: &str = "PACKAGE_NAME=foo\nPACKAGE_VERSION=1.0\nBUILT_MODULE_NAME=foo\n\
                    DEST_MODULE_LOCATION=/updates\nBUILD_DEPENDS=dep\n";

struct Host {
    dir: tempfile::TempDir,
    scope: Scope,
    kernel: &'static str,
    environment: Vec<(String, String)>,
    jobs: u32,
    policy: Policy,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (scope, policy) = (Scope::default(), Policy::default());
        let host = Self { dir, scope, kernel: "6.1-1", environment: Vec::new(), jobs: 1, policy };
        for release in ["6.1-1", "6.1-2"] {
            for (path, text) in [
                ("Module.symvers", "0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n"),
                ("include/config/auto.conf", "CONFIG_X86_64=y\n"),
                ("include/linux/module.h", "struct module;\n"),
                ("Makefile", "VERSION = 6\n"),
            ] {
                host.write(&format!("usr/src/headers-{release}/{path}"), text);
            }
            let modules = host.path(&format!("lib/modules/{release}"));
            fs::create_dir_all(&modules).unwrap();
            symlink(host.path(&format!("usr/src/headers-{release}")), modules.join("build")).unwrap();
        }
        for name in ["foo", "dep", "other"] {
            host.write(&format!("usr/src/{name}-1.0/Makefile"), &format!("obj-m := {name}.o\n"));
            let version = host.path(&format!("var/lib/dkms/{name}/1.0"));
            fs::create_dir_all(&version).unwrap();
            symlink(host.path(&format!("usr/src/{name}-1.0")), version.join("source")).unwrap();
        }
        host.conf("");
        host.write("usr/src/foo-1.0/foo.c", "int foo;\n");
        host.write("var/lib/dkms/dep/1.0/6.1-1/x86_64/module/Module.symvers", "0x2\tdep\n");
        host.write("var/lib/dkms/dep/1.0/6.1-1/x86_64/module/dep.ko", "signed with one key");
        symlink("1.0/6.1-1/x86_64", host.path("var/lib/dkms/dep/kernel-6.1-1-x86_64")).unwrap();
        for program in ["gcc", "ld", "make"] {
            host.write(&format!("usr/bin/{program}"), program);
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        files::write_atomically(&self.path(path), text.as_bytes(), 0o755).unwrap();
    }

    fn conf(&self, more: &str) {
        self.write("usr/src/foo-1.0/dkms.conf", CONF);
        // In a place whose content is no input of itself.
        self.write("etc/dkms/foo.conf", more);
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn build<T>(&self, then: impl FnOnce(&Build<'_>) -> T) -> T {
        let tree = Tree::at(self.dir.path());
        let id = ModuleId::new("foo", "1.0").unwrap();
        let target = Target { kernel: self.kernel.parse().unwrap(), arch: tree.arch.clone() };
        let loaded = tree.load(&id, Some(&target), &self.scope).unwrap();
        let given = self.scope.kernel_source_dir.as_deref();
        let kernel = tree.kernel_build_dir(&target.kernel, given, None).unwrap().unwrap();
        let variables = tree.variables(Some(&id), Some(&target), &self.scope);
        let variables: Vec<(String, String)> = ["kernelver", "kernel_source_dir"]
            .map(|name| (name.to_owned(), variables.scalar(name).unwrap().to_owned()))
            .into();
        then(&Build {
            jobs: &Jobs::new(Some(self.jobs), 1).unwrap(),
            report: &Report::new(true, false),
            launcher: None,
            sandbox: Default::default(),
            limit: None,
            id: &id,
            target: &target,
            excluded: &vec![false; loaded.conf.records.len()],
            symbols: &KernelSymbols::of(&kernel),
            signer: None,
            compressors: &Compressors::default(),
            built_against: &[],
            cross: None,
            variables: &variables,
            store: &Store::new(&tree, &self.policy),
            remotes: &Remotes::default(),
            settings: "",
            has_headers: true,
            anew: false,
            tree: &tree,
            loaded: &loaded,
            kernel: &kernel,
        })
    }

    /// Nothing if the build is not to be stored.
    fn key(&self) -> Option<Key> {
        let key =
            |build: &Build<'_>| inputs(build, &self.environment).unwrap().map(|(inputs, _)| inputs.key());
        self.build(|build| if build.store.wants(&build.loaded.conf) { key(build) } else { None })
    }
}

#[rstest]
#[case::kernel_release(|host: &mut Host| host.kernel = "6.1-2")]
#[case::symbols(|host: &mut Host| host.write("usr/src/headers-6.1-1/Module.symvers", "0x2\tprintk\tvmlinux\n"))]
#[case::configuration(|host: &mut Host| host.write("usr/src/headers-6.1-1/include/config/auto.conf", "CONFIG_X86_64=y\nA=y\n"))]
#[case::header(|host: &mut Host| host.write("usr/src/headers-6.1-1/include/linux/module.h", "struct module2;"))]
#[case::kernel_makefile(|host: &mut Host| host.write("usr/src/headers-6.1-1/Makefile", "VERSION = 7\n"))]
#[case::source(|host: &mut Host| host.write("usr/src/foo-1.0/foo.c", "int bar;\n"))]
#[case::more_source(|host: &mut Host| host.write("usr/src/foo-1.0/bar.c", ""))]
#[case::mode(|host: &mut Host| fs::set_permissions(host.path("usr/src/foo-1.0/foo.c"), PermissionsExt::from_mode(0o600)).unwrap())]
#[case::link(|host: &mut Host| symlink("foo.c", host.path("usr/src/foo-1.0/bar.c")).unwrap())]
#[case::make_command(|host: &mut Host| host.conf("MAKE='make all'\n"))]
#[case::late_variable(|host: &mut Host| host.conf("FLAG=x\nMAKE='make -C $kernel_source_dir $FLAG'\n"))]
#[case::strip(|host: &mut Host| host.conf("STRIP=no\n"))]
#[case::place_of_the_result(|host: &mut Host| host.conf("BUILT_MODULE_LOCATION=src/\n"))]
#[case::patch(|host: &mut Host| host.conf("PATCH=a.patch\n"))]
#[case::patch_of_the_administrators(|host: &mut Host| host.write("etc/dkms/foo/patches/a.patch", "x"))]
#[case::directive(|host: &mut Host| host.scope.directives.push(("MAKE[0]".to_owned(), "make x".to_owned())))]
#[case::compiler(|host: &mut Host| host.write("usr/bin/gcc", "another"))]
#[case::linker(|host: &mut Host| host.write("usr/bin/ld", "another"))]
#[case::make(|host: &mut Host| host.write("usr/bin/make", "another"))]
#[case::other_compiler(|host: &mut Host| host.set("CC", "gcc-13"))]
#[case::other_toolchain(|host: &mut Host| host.set("LLVM", "1"))]
#[case::flags(|host: &mut Host| host.set("KCFLAGS", "-g"))]
#[case::dependency_symbols(|host: &mut Host| host.write("var/lib/dkms/dep/1.0/6.1-1/x86_64/module/Module.symvers", "0x3\tdep\n"))]
#[case::dependency_extra(|host: &mut Host| host.write("var/lib/dkms/dep/1.0/6.1-1/x86_64/dep_config.h", "x"))]
#[case::dependency_source(|host: &mut Host| host.write("usr/src/dep-1.0/dep.h", "x"))]
#[case::dependency_gone(|host: &mut Host| fs::remove_file(host.path("var/lib/dkms/dep/kernel-6.1-1-x86_64")).unwrap())]
fn what_a_build_depends_on_is_in_its_key(#[case] change: fn(&mut Host)) {
    let mut host = Host::new();
    let before = host.key().unwrap();
    assert_eq!(host.key().unwrap(), before);
    change(&mut host);
    assert_ne!(host.key().unwrap(), before);
}

/// The same headers elsewhere, as an unpacked package has them.
fn move_headers(host: &mut Host) {
    let place = host.path("unpacked/headers");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::rename(host.path("usr/src/headers-6.1-1"), &place).unwrap();
    host.scope.kernel_source_dir = Some(place);
}

#[rstest]
#[case::where_headers_are(move_headers)]
#[case::age(|host: &mut Host| {
    let file = fs::File::options().append(true).open(host.path("usr/src/foo-1.0/foo.c")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
})]
#[case::jobs(|host: &mut Host| host.jobs = 8)]
#[case::signature_of_a_dependency(|host: &mut Host| host.write("var/lib/dkms/dep/1.0/6.1-1/x86_64/module/dep.ko", "signed with two"))]
#[case::other_modules(|host: &mut Host| host.write("usr/src/other-1.0/Makefile", "obj-m := another.o\n"))]
#[case::how_it_is_installed(|host: &mut Host| host.conf("DEST_MODULE_LOCATION=/extra\nAUTOINSTALL=yes\nREMAKE_INITRD=yes\n"))]
#[case::caller(|host: &mut Host| host.set("DPKG_MAINTSCRIPT_NAME", "postinst"))]
fn what_does_not_matter_is_not_in_it(#[case] change: fn(&mut Host)) {
    let mut host = Host::new();
    host.conf("MAKE=\"make -C $kernel_source_dir M=$dkms_tree/foo/1.0/build\"\n");
    let before = host.key().unwrap();
    change(&mut host);
    let more = fs::read_to_string(host.path("etc/dkms/foo.conf")).unwrap();
    host.conf(&format!("{more}MAKE=\"make -C $kernel_source_dir M=$dkms_tree/foo/1.0/build\"\n"));
    assert_eq!(host.key().unwrap(), before);
}

#[rstest]
#[case::pre_build("PRE_BUILD=foo.c\n", None, false)]
#[case::post_build("POST_BUILD=foo.c\n", None, false)]
#[case::with_the_administrators_word("PRE_BUILD=foo.c\n", Some(true), true)]
#[case::install_scripts("PRE_INSTALL=foo.c\nPOST_INSTALL=foo.c\nPOST_ADD=foo.c\n", None, true)]
#[case::against_the_administrators_word("", Some(false), false)]
#[case::only_the_shell_knows("MAKE='make KVER=$(uname -r)'\n", None, false)]
#[case::elsewhere("MAKE=\"make -C $source_tree/other-1.0\"\n", None, false)]
fn some_builds_are_not_stored(#[case] conf: &str, #[case] word: Option<bool>, #[case] stored: bool) {
    let mut host = Host::new();
    host.conf(conf);
    host.policy.module_store.extend(word.map(|word| ("foo".to_owned(), word)));
    assert_eq!(host.key().is_some(), stored);
    host.policy.store_size = Some(0);
    assert_eq!(host.key(), None);
}

#[test]
fn sources_that_lead_elsewhere_are_not_stored() {
    let host = Host::new();
    symlink(host.path("usr/src/other-1.0"), host.path("usr/src/foo-1.0/other")).unwrap();
    assert_eq!(host.key(), None);
}

/// What was built for symbols that the machine no longer has would not load.
#[rstest]
#[case::fits("printk", true)]
#[case::does_not("gone", false)]
fn what_would_not_load_is_not_taken(#[case] needs: &str, #[case] taken: bool) {
    use crate::module_file::fixture::Made;
    let host = Host::new();
    host.build(|build| {
        let key = inputs(build, &[]).unwrap().unwrap().0.key();
        let made = Made::nameless().info("name", "foo").gpl().info("vermagic", "6.1-1 ");
        let image = made.needs(needs).build();
        let entry =
            Entry { built: vec![("foo.ko".into(), image)], kept: vec![(LOG.into(), 0o644, b"log".to_vec())] };
        build.store.put(&key, &entry, "foo").unwrap();
        assert_eq!(find(build, &key).is_some(), taken);
        assert_eq!(build.store.take(&key, build.report).is_some(), taken, "what is no good stays");
    });
}
