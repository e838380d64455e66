// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores that machines share: what one has built another installs without a compiler or headers, by
//! way of a directory and of real servers; and nothing that is not what it should be.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use common::server::{PASSWORD, Server, USER, free_port};
use common::{Lab, Series, good};
use fs_err as fs;
use rstest::rstest;

const INSIDE: &str = "/srv/modules";

fn remotes(lab: &Lab, remotes: &[&str]) {
    lab.write("etc/dkms/policy.d/store.toml", &format!("[store]\nremotes = {remotes:?}\n"));
}

/// What the machine says to servers that ask.
fn credentials(lab: &Lab, remote: &str, text: &str) {
    lab.write("etc/dkms/store-credentials.toml", &format!("[{remote:?}]\n{text}"));
    lab.sh("chmod 600 /etc/dkms/store-credentials.toml").succeeds();
}

/// A directory that roots share.
fn shared() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A machine with all it takes to build, which has built foo.
fn builder(remote: &str, directory: &Path) -> Lab {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).shared(directory, INSIDE).registered("foo", "1.0", good());
    remotes(&lab, &[remote]);
    lab.run(["build", "foo/1.0", "-k", release]).succeeds();
    lab.run(["push", "--generate-key"]).succeeds().says("/etc/dkms/store.pub");
    lab
}

/// A machine that trusts the builder, with neither headers nor a compiler.
fn host(remote: &str, directory: &Path, builder: &Lab) -> Lab {
    let lab = Lab::new().image_stand_in(Series::New.release()).shared(directory, INSIDE).without_compiler();
    trust(&lab, builder);
    remotes(&lab, &[remote]);
    lab.registered("foo", "1.0", good())
}

fn trust(lab: &Lab, builder: &Lab) {
    let key = fs::read_to_string(builder.path("etc/dkms/store.pub")).unwrap();
    lab.write("etc/dkms/store-keys.d/builder.pub", &key);
}

/// The archives in a directory.
fn archives(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut archives: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "zst")).collect();
    archives.sort();
    archives
}

fn signature(archive: &Path) -> PathBuf {
    PathBuf::from(format!("{}.minisig", archive.display()))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Directory,
    Http,
    HttpsWithPassword,
    Registry,
    RegistryWithPassword,
    Bucket,
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_one_machine_has_built_another_installs_without_a_compiler(
    #[values(
        Kind::Directory,
        Kind::Http,
        Kind::HttpsWithPassword,
        Kind::Registry,
        Kind::RegistryWithPassword,
        Kind::Bucket
    )]
    kind: Kind,
) {
    let release = Series::New.release();
    let directory = shared();
    let server = match kind {
        Kind::Directory => None,
        Kind::Http => Some(Server::nginx(false)),
        Kind::HttpsWithPassword => Some(Server::nginx(true)),
        Kind::Registry => Some(Server::registry(false)),
        Kind::RegistryWithPassword => Some(Server::registry(true)),
        Kind::Bucket => Some(Server::s3()),
    };
    let port = server.as_ref().map_or(0, |server| server.port);
    let remote = match kind {
        Kind::Directory => INSIDE.to_owned(),
        Kind::Http => format!("http://127.0.0.1:{port}/fleet"),
        Kind::HttpsWithPassword => format!("https://localhost:{port}/fleet"),
        Kind::Registry | Kind::RegistryWithPassword => format!("oci+http://127.0.0.1:{port}/fleet/modules"),
        Kind::Bucket => format!("s3+http://modules/fleet?endpoint=127.0.0.1:{port}"),
    };
    let (builder, host) = {
        let builder = builder(&remote, directory.path());
        let host = host(&remote, directory.path(), &builder);
        (builder, host)
    };
    if let (Kind::HttpsWithPassword, Some(server)) = (kind, &server) {
        for lab in [&builder, &host] {
            let authority = fs::read_to_string(server.lab.as_ref().unwrap().path("tls/authority")).unwrap();
            lab.write("etc/ssl/certs/ca-certificates.crt", &authority);
        }
    }
    let secrets = match kind {
        Kind::HttpsWithPassword | Kind::RegistryWithPassword => {
            builder.run(["push"]).exits(1).says("401 Unauthorized");
            host.run(["install", "foo/1.0", "-k", release]).exits(21).says("401 Unauthorized");
            Some(format!("user = \"{USER}\"\npassword = \"{PASSWORD}\"\n"))
        }
        Kind::Bucket => Some(format!("access_key = \"{USER}\"\nsecret_key = \"{PASSWORD}\"\n")),
        _ => None,
    };
    if let Some(secrets) = secrets {
        credentials(&builder, &remote, &secrets);
        credentials(&host, &remote, &secrets);
        // The environment of who pushes goes before the file.
        builder
            .sh("DKMS_STORE_PASSWORD=odd AWS_SECRET_ACCESS_KEY=odd dkms push")
            .exits(1)
            .says("is answered with 40");
    }
    // Nothing is there yet.
    host.run(["install", "foo/1.0", "-k", release]).exits(21).says("kernel headers");

    builder.run(["push", "foo/1.0", "-k", release]).succeeds().says(&format!("to {remote}... done."));
    // It is there already, which is no fault.
    builder.run(["push"]).succeeds();
    host.run(["install", "foo/1.0", "-k", release])
        .succeeds()
        .says(&format!("Taking module(s) from {remote}... done."));
    host.assert_installed("foo", "1.0", release);
    host.sh(&format!("modinfo -k {release} -F vermagic foo")).succeeds().says(release);
    host.sh(&format!("tail -n 2 /var/lib/dkms/foo/1.0/{release}/*/log/make.log")).says(&remote);

    // The same module, and what was built elsewhere is none the worse for another compiler here.
    let of = |lab: &Lab| lab.sh(&format!("cat /var/lib/dkms/foo/1.0/{release}/*/module/foo.ko*")).stdout();
    assert_eq!(of(&builder), of(&host));
    host.run(["doctor"]).says_nothing_of("foo");
}

/// The files are what minisign, tar and readers of SBOMs know.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_is_pushed_can_be_looked_at_with_other_programs() {
    let directory = shared();
    let builder =
        builder(INSIDE, directory.path()).packages(&["minisign"]).packages_and_dependencies(&["libsodium23"]);
    builder.run(["push"]).succeeds();
    let archive = archives(directory.path())[0].file_name().unwrap().to_str().unwrap().to_owned();
    builder
        .sh(&format!("minisign -V -p /etc/dkms/store.pub -m {INSIDE}/{archive}"))
        .succeeds()
        .says(&format!("Trusted comment: foo/1.0 for {}", Series::New.release()));
    builder
        .sh(&format!("mkdir /x; tar -xf {INSIDE}/{archive} -C /x; cd /x; ls -R . /x/built"))
        .succeeds()
        .says("foo.ko");
    let sbom: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(builder.path("x/sbom.cdx.json")).unwrap()).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let module = &sbom["metadata"]["component"];
    assert_eq!((&module["name"], &module["version"]), (&"foo".into(), &"1.0".into()));
    assert_eq!(module["licenses"][0]["license"]["name"], "GPL");
    let components = sbom["components"].as_array().unwrap();
    let file = components.iter().find(|component| component["name"] == "built/foo.ko").unwrap();
    let digest = builder.sh("sha256sum /x/built/foo.ko").stdout();
    assert_eq!(Some(file["hashes"][0]["content"].as_str().unwrap()), digest.split(' ').next());
}

/// What was done to what lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tampering {
    Changed,
    CutOff,
    Unsigned,
    SignedBySomebody,
    OtherModule,
    OtherKernel,
    OtherSources,
}

fn tamper(how: Tampering, builder: &Lab, directory: &Path) -> &'static str {
    let of_foo = archives(directory)[0].clone();
    // Puts what was pushed last into the place of foo's.
    let replace = || {
        let new = archives(directory).into_iter().find(|path| *path != of_foo).unwrap();
        fs::rename(&new, &of_foo).unwrap();
        fs::rename(signature(&new), signature(&of_foo)).unwrap();
    };
    match how {
        Tampering::Changed => {
            let mut bytes = fs::read(&of_foo).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&of_foo, bytes).unwrap();
            "it was changed since"
        }
        Tampering::CutOff => {
            let bytes = fs::read(&of_foo).unwrap();
            fs::write(&of_foo, &bytes[..bytes.len() - 1]).unwrap();
            "it was changed since"
        }
        Tampering::Unsigned => {
            fs::remove_file(signature(&of_foo)).unwrap();
            "it is not signed"
        }
        Tampering::SignedBySomebody => {
            builder
                .sh("mkdir /own; mv /etc/dkms/store.* /own; dkms push --generate-key; dkms push; \
                     mv /own/* /etc/dkms")
                .succeeds();
            "which is not among those that /etc/dkms/store-keys.d trusts"
        }
        Tampering::OtherModule => {
            builder.write("usr/src/bar-1.0/Makefile", "obj-m := bar.o\n");
            builder.write(
                "usr/src/bar-1.0/dkms.conf",
                "PACKAGE_NAME=bar\nPACKAGE_VERSION=1.0\nBUILT_MODULE_NAME=bar\nDEST_MODULE_LOCATION=/updates/dkms\n",
            );
            builder.sh("sed s/foo/bar/ /usr/src/foo-1.0/foo.c >/usr/src/bar-1.0/bar.c").succeeds();
            builder.run(["build", "bar/1.0", "-k", Series::New.release()]).succeeds();
            builder.run(["push", "bar/1.0"]).succeeds();
            replace();
            "it is bar/1.0 for"
        }
        Tampering::OtherKernel => {
            builder.run(["build", "foo/1.0", "-k", Series::Old.release()]).succeeds();
            builder.run(["push", "foo/1.0", "-k", Series::Old.release()]).succeeds();
            replace();
            "it is foo/1.0 for"
        }
        Tampering::OtherSources => {
            builder.sh("echo '// other' >>/usr/src/foo-1.0/foo.c").succeeds();
            builder.run(["build", "--force", "foo/1.0", "-k", Series::New.release()]).succeeds();
            builder.run(["push", "foo/1.0", "-k", Series::New.release()]).succeeds();
            replace();
            "it was built from other sources of foo/1.0"
        }
    }
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_was_tampered_with_is_refused_and_compiled_where_that_is_possible() {
    let release = Series::New.release();
    let directory = shared();
    let builder = builder(INSIDE, directory.path()).kernel(Series::Old);
    let bare = host(INSIDE, directory.path(), &builder);
    let whole = Lab::new().kernel(Series::New).shared(directory.path(), INSIDE);
    trust(&whole, &builder);
    remotes(&whole, &[INSIDE]);
    let whole = whole.registered("foo", "1.0", good());
    for how in [
        Tampering::Changed,
        Tampering::CutOff,
        Tampering::Unsigned,
        Tampering::SignedBySomebody,
        Tampering::OtherModule,
        Tampering::OtherKernel,
        Tampering::OtherSources,
    ] {
        builder.sh(&format!("rm -f {INSIDE}/*; dkms push foo/1.0 -k {release}")).succeeds();
        let why = tamper(how, &builder, directory.path());

        // The failure says it, too, not only the warning before it.
        let refused = bare.run(["install", "foo/1.0", "-k", release]);
        refused.exits(21).says(&format!("of {INSIDE} is refused: "));
        let failure = refused.stderr();
        let failure = failure.split("Error!").nth(1).unwrap_or_default();
        assert!(failure.contains("It could not be taken from a shared store"), "{how:?}: {refused}");
        assert!(failure.contains(why), "{how:?}: {refused}");
        bare.assert_not_installed("foo", release);

        whole
            .sh(&format!(
                "dkms unbuild foo/1.0 -k {release}; rm -rf /var/lib/dkms/.hooks/store; \
                 dkms install foo/1.0 -k {release}"
            ))
            .succeeds()
            .says(why)
            .says("Building module(s)... done.");
        whole.assert_installed("foo", "1.0", release);
    }
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn modules_for_other_headers_or_settings_are_not_taken() {
    let release = Series::New.release();
    let directory = shared();
    let builder = builder(INSIDE, directory.path());
    builder.run(["push"]).succeeds();
    let lab = Lab::new().kernel(Series::New).shared(directory.path(), INSIDE);
    trust(&lab, &builder);
    remotes(&lab, &[INSIDE]);
    let lab = lab.registered("foo", "1.0", good());
    let anew = format!(
        "dkms unbuild foo/1.0 -k {release}; rm -rf /var/lib/dkms/.hooks/store; dkms install foo/1.0 -k {release}"
    );
    lab.run(["install", "foo/1.0", "-k", release]).succeeds().says("Taking module(s) from");
    lab.write("etc/dkms/foo.conf", "CLEAN=true\n");
    lab.sh(&anew).succeeds().says("Building module(s)...").says_nothing_of("refused");
    lab.sh("rm /etc/dkms/foo.conf").succeeds();
    lab.sh(&anew).succeeds().says("Taking module(s) from");
    // --force compiles.
    lab.run(["build", "--force", "foo/1.0", "-k", release]).succeeds().says("Building module(s)...");
    lab.sh(&format!("echo >>/lib/modules/{release}/build/include/generated/autoconf.h")).succeeds();
    lab.sh(&anew).succeeds().says("it was built against other headers of").says("Building module(s)...");
}

/// A real kernel tells by its own modules what fits it, headers or not.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_kernels_own_modules_have_a_say_where_there_are_no_headers() {
    let release = Series::New.cloud_release();
    let directory = shared();
    let builder = Lab::new().headers(release).image_stand_in(release).shared(directory.path(), INSIDE);
    let builder = builder.registered("foo", "1.0", good());
    remotes(&builder, &[INSIDE]);
    builder.run(["build", "foo/1.0", "-k", release]).succeeds();
    builder.run(["push", "--generate-key"]).succeeds();
    builder.run(["push"]).succeeds();
    let host = Lab::new().image(release).shared(directory.path(), INSIDE).without_compiler();
    trust(&host, &builder);
    remotes(&host, &[INSIDE]);
    let host = host.registered("foo", "1.0", good());
    host.sh(&format!("rm /boot/config-{release}; depmod {release}")).succeeds();
    // As if they were of another configuration with the same release: as long a word, so the image is whole.
    let own = format!("/lib/modules/{release}/kernel");
    host.sh(&format!("cp -a {own} /own; find {own} -name '*.ko' -exec sed -i 's/ SMP / UNI /' {{}} +"))
        .succeeds();
    host.run(["install", "foo/1.0", "-k", release])
        .exits(21)
        .says("the kernel would not load it: its vermagic is");
    host.sh(&format!("rm -r {own}; mv /own {own}")).succeeds();
    host.run(["install", "foo/1.0", "-k", release]).succeeds();
    host.assert_installed("foo", "1.0", release);
    host.run(["verify", "-k", release]).succeeds();
}

/// Hooks and autoinstall go the same way; a kernel without headers is none that is left alone.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn hooks_take_from_shared_stores_as_well() {
    let release = Series::New.release();
    let directory = shared();
    let builder = builder(INSIDE, directory.path());
    let host = host(INSIDE, directory.path(), &builder);
    // Nothing has what it needs: as before, a kernel without headers is no reason to fail.
    let before = host.image_postinst_hooks(release);
    before.says("kernel headers");
    host.sh(&format!("dkms hook autoinstaller start {release}"))
        .succeeds()
        .says("was skipped since the kernel headers");
    builder.run(["push"]).succeeds();
    host.image_postinst_hooks(release).succeeds().says("Taking module(s) from");
    host.assert_installed("foo", "1.0", release);
    host.run(["unbuild", "foo/1.0", "-k", release]).succeeds();
    host.run(["autoinstall", "--all-kernels"]).succeeds().says_nothing_of("left alone");
    host.assert_installed("foo", "1.0", release);
}

/// One that is not there is told of once, however many modules and kernels there are; the next one is
/// asked.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_store_that_cannot_be_reached_costs_one_warning() {
    let directory = shared();
    let builder = builder(INSIDE, directory.path());
    builder.run(["push"]).succeeds();
    let (closed, silent) = (free_port(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let closed = format!("http://127.0.0.1:{closed}/x");
    let silent = format!("oci+http://127.0.0.1:{}/x", silent.local_addr().unwrap().port());
    let host = host(INSIDE, directory.path(), &builder).registered("bar", "1.0", good());
    remotes(&host, &["/nowhere", &closed, "https://no-such-host.invalid/x", &silent, INSIDE]);
    let begun = std::time::Instant::now();
    let ran = host.run(["autoinstall", "-k", Series::New.release()]);
    assert!(begun.elapsed().as_secs() < 40, "{:?}", begun.elapsed());
    host.assert_installed("foo", "1.0", Series::New.release());
    let said = ran.stdout() + &ran.stderr();
    for remote in ["/nowhere", &closed, "https://no-such-host.invalid/x", &silent] {
        let warning = format!("Warning: {remote} is not asked for built modules: ");
        assert_eq!(said.matches(&warning).count(), 1, "{remote}: {ran}");
    }
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn who_trusts_nobody_asks_nobody() {
    let directory = shared();
    let builder = builder(INSIDE, directory.path());
    builder.run(["push"]).succeeds();
    let host = host(INSIDE, directory.path(), &builder);
    host.sh("rm /etc/dkms/store-keys.d/builder.pub").succeeds();
    let release = Series::New.release();
    host.run(["install", "foo/1.0", "-k", release]).exits(21).says("no key is trusted");
    // Nor does anybody read secrets that are no secrets.
    let remote = format!("http://127.0.0.1:{}/x", free_port());
    trust(&host, &builder);
    remotes(&host, &[&remote]);
    host.write("etc/dkms/store-credentials.toml", "");
    host.sh("chmod 644 /etc/dkms/store-credentials.toml").succeeds();
    host.run(["install", "foo/1.0", "-k", release])
        .exits(21)
        .says("chmod 600 /etc/dkms/store-credentials.toml");
}
