// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules signed by a real kernel's own sign-file with keys made by the real openssl, read back
//! by the real kmod.

mod common;

use common::{Lab, Series, good};
use rstest::rstest;

/// What `dkms` is told about signing: a lab is a chroot, where it would not be done by default.
const FRAMEWORK: &str = "etc/dkms/framework.conf.d/signing.conf";

/// Series::Next compresses its modules and wants its own to be signed.
fn lab(framework: &str) -> Lab {
    let lab = Lab::new().kernel(Series::Next).registered("foo", "1.0", good());
    lab.write(FRAMEWORK, framework);
    lab
}

/// Unpacks the installed module to /tmp/NAME.ko and takes it apart by the kernel's documentation
/// (module-signing.rst) into /tmp/NAME.content and /tmp/NAME.signature.
fn take_apart(lab: &Lab, name: &str) {
    let release = Series::Next.release();
    lab.sh(&format!(
        "cd /tmp; xz -dc /lib/modules/{release}/updates/dkms/{name}.ko.xz >{name}.ko\n\
         [ \"$(tail -c 28 {name}.ko)\" = '~Module signature appended~' ]\n\
         length=$((0x$(tail -c 32 {name}.ko | head -c 4 | od -An -tx1 | tr -d ' ')))\n\
         head -c -$((length + 40)) {name}.ko >{name}.content\n\
         tail -c +$(($(stat -c %s {name}.content) + 1)) {name}.ko | head -c $length >{name}.signature"
    ))
    .succeeds();
}

/// Verifies the signature of a module that was taken apart, over this content.
fn verify(lab: &Lab, name: &str, content: &str) -> common::Ran {
    lab.sh(&format!(
        "cd /tmp; openssl x509 -inform DER -in /var/lib/dkms/mok.pub -out mok.pem\n\
         openssl cms -verify -binary -inform DER -in {name}.signature -content {content} \
         -certfile mok.pem -CAfile mok.pem -purpose any -out /dev/null"
    ))
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_signed_and_compressed_module_reads_back() {
    let release = Series::Next.release();
    let lab = lab("try_sign_modules=\"true\"\n").registered("bar", "1.0", good());

    lab.run(["install", "foo/1.0", "-k", release])
        .succeeds()
        .says(&format!("Sign command: /lib/modules/{release}/build/scripts/sign-file"))
        .says("Certificate or key are missing, generating self signed certificate for MOK...")
        .says("Signing module /var/lib/dkms/foo/1.0/build/foo.ko");
    lab.assert_installed("foo", "1.0", release);
    lab.run(["status"]).says_nothing_of("Differences");
    lab.sh(&format!("modinfo -k {release} foo"))
        .succeeds()
        .says(&format!("/lib/modules/{release}/updates/dkms/foo.ko.xz"))
        .says("signer:         DKMS module signing key")
        .says("sig_hashalgo:   sha256");
    take_apart(&lab, "foo");
    verify(&lab, "foo", "foo.content").succeeds();
    lab.sh("printf x >>/tmp/foo.content").succeeds();
    verify(&lab, "foo", "foo.content").fails();
    let modes = lab.sh("stat -c '%a %U' /var/lib/dkms/mok.key /var/lib/dkms/mok.pub");
    assert_eq!(modes.stdout(), "600 root\n644 root\n");
    lab.sh("ls -A /var/lib/dkms | grep key-").fails();

    // The next module gets its signature from the same key.
    let keys = lab.sh("sha256sum /var/lib/dkms/mok.*").stdout();
    lab.run(["autoinstall", "-k", release]).succeeds().says_nothing_of("generating");
    assert_eq!(lab.sh("sha256sum /var/lib/dkms/mok.*").stdout(), keys);
    take_apart(&lab, "bar");
    verify(&lab, "bar", "bar.content").succeeds();
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn keys_of_the_administrators_sign_and_stay_as_they_are() {
    let release = Series::Next.release();
    let lab = lab("try_sign_modules=\"true\"\n\
                   mok_signing_key=\"/etc/keys/$kernelver.pem\"\nmok_certificate=\"/etc/keys/ours.der\"\n");
    lab.sh(&format!(
        "mkdir -m 700 /etc/keys; cd /etc/keys\n\
         openssl req -new -x509 -newkey rsa:2048 -nodes -subj '/CN=The company' -outform DER \
         -keyout {release}.pem -out ours.der; chmod 400 *"
    ))
    .succeeds();
    let before = lab.sh("ls -lA /etc/keys; sha256sum /etc/keys/*").stdout();

    lab.run(["install", "foo/1.0", "-k", release]).succeeds();
    lab.run(["generate_mok", "-k", release]).succeeds();
    lab.sh(&format!("modinfo -k {release} -F signer foo")).says("The company");
    assert_eq!(lab.sh("ls -lA /etc/keys; sha256sum /etc/keys/*").stdout(), before);
    lab.sh("ls /var/lib/dkms/mok.*").fails();
}

#[rstest]
#[case::chroot("", "Running in chroot, modules won't be signed")]
#[case::policy(
    "try_sign_modules=\"false\"\n",
    "Module signing is disabled by policy, modules won't be signed"
)]
#[case::no_program(
    "try_sign_modules=\"true\"\nsign_file=\"/lib/modules/$kernelver/nothing\"\n",
    "/nothing not found, modules won't be signed"
)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_that_is_not_to_be_signed_is_installed_as_it_is(#[case] framework: &str, #[case] why: &str) {
    let release = Series::Next.release();
    let lab = lab(framework);

    lab.run(["install", "foo/1.0", "-k", release]).succeeds().says(why).says_nothing_of("Signing module");
    lab.assert_installed("foo", "1.0", release);
    lab.sh(&format!("modinfo -k {release} foo")).succeeds().says_nothing_of("sig");
    lab.sh("ls /var/lib/dkms/mok.*").fails();
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_that_could_not_be_signed_is_installed_with_a_warning() {
    let release = Series::Next.release();
    let lab = lab("try_sign_modules=\"true\"\n");
    lab.write("var/lib/dkms/mok.key", "no key\n");
    lab.write("var/lib/dkms/mok.pub", "no certificate\n");

    lab.run(["install", "foo/1.0", "-k", release])
        .succeeds()
        .says("Warning: Failed to sign module '/var/lib/dkms/foo/1.0/build/foo.ko'!")
        .says("sign-file");
    lab.assert_installed("foo", "1.0", release);
    lab.sh(&format!("modinfo -k {release} foo")).succeeds().says_nothing_of("signer");
    lab.sh("cat /var/lib/dkms/mok.*").says("no key\nno certificate\n");
}

/// sign-file takes the passphrase from KBUILD_SIGN_PIN; a program around it may ask for that.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_key_with_a_passphrase_signs_and_nobody_waits_for_it() {
    let release = Series::Next.release();
    let lab = lab("try_sign_modules=\"true\"\n");
    lab.sh("cd /var/lib/dkms; openssl req -new -x509 -newkey rsa:2048 -passout pass:secret \
            -subj '/CN=Locked' -outform DER -keyout mok.key -out mok.pub")
        .succeeds();
    lab.sh(&format!("setsid --wait dkms build foo/1.0 -k {release}"))
        .succeeds()
        .says("Warning: Failed to sign module '/var/lib/dkms/foo/1.0/build/foo.ko'!");
    lab.sh(&format!("KBUILD_SIGN_PIN=secret dkms build foo/1.0 -k {release} --force"))
        .succeeds()
        .says_nothing_of("Warning");

    let lab = lab.executable(
        "usr/local/bin/asking",
        "#!/bin/sh\nread -r KBUILD_SIGN_PIN </dev/tty || exit\nexport KBUILD_SIGN_PIN\n\
         exec /lib/modules/$kernelver/build/scripts/sign-file \"$@\"\n",
    );
    lab.write(FRAMEWORK, "try_sign_modules=\"true\"\nsign_file=\"/usr/local/bin/asking\"\n");
    lab.sh(&format!(
        "echo secret | script -qec 'dkms build foo/1.0 -k {release} --force' /dev/null
         dkms install foo/1.0 -k {release} --force"
    ))
    .succeeds()
    .says_nothing_of("Warning");
    lab.sh(&format!("setsid --wait dkms build foo/1.0 -k {release} --force"))
        .succeeds()
        .says("Failed to sign");
    lab.sh(&format!("modinfo -k {release} -F signer foo")).says("Locked");
}

/// Two runs at once make one pair, which both sign with.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn runs_side_by_side_share_one_key() {
    let release = Series::Next.release();
    let lab = lab("try_sign_modules=\"true\"\n").registered("bar", "1.0", good());

    lab.sh(&format!(
        "dkms install foo/1.0 -k {release} & first=$!; dkms install bar/1.0 -k {release}; wait $first"
    ))
    .succeeds();
    for name in ["foo", "bar"] {
        take_apart(&lab, name);
        verify(&lab, name, &format!("{name}.content")).succeeds();
    }
}
