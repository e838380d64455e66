// SPDX-License-Identifier: MIT OR Apache-2.0
//! What real kernels' modules, headers and compilers make, and what is said of it: faults that the
//! kernel would refuse a module for, and no fault where there is none.

mod common;

use common::{Lab, Series, Source, code, good};
use rstest::rstest;

/// make as dkms calls it, then a change to what it made.
fn made(body: &'static str, variables: &str, afterwards: &str) -> Source {
    code(body).conf(&format!(
        "MAKE[0]=\"make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build {variables} {afterwards}\""
    ))
}

const PRINTS: &str = "printk(\"here\\n\"); return 0;";
/// Another checksum before the name of _printk in the list of versions.
const OTHER_VERSION: &str =
    r"&& perl -0777 -pi -e 's/....(\\0{4})_printk\\0/\\1\\2\\3\\4\$1_printk\\0/s' odd.ko";

#[rstest]
#[case::other_version(
    made(PRINTS, "", OTHER_VERSION),
    "it was built for other versions of what it uses: _printk"
)]
#[case::unknown_symbol(
    made("extern int no_such_function(void); return no_such_function();", "KBUILD_MODPOST_WARN=1", ""),
    "it needs what the kernel does not have: no_such_function"
)]
#[case::not_imported(
    made("extern void dma_buf_put(void *); dma_buf_put(0); return 0;", "KBUILD_NSDEPS=1", ""),
    "it does not import the namespace DMA_BUF of what it uses: dma_buf_put"
)]
#[case::not_under_the_gpl(
    made(
        "return !kobject_create_and_add(\"odd\", NULL);",
        "",
        r"&& perl -0777 -pi -e 's/license=GPL\\0/license=NVD\\0/' odd.ko"
    ),
    "it uses what is for modules under the GPL only, and its licence is 'NVD': kobject_create_and_add"
)]
#[ignore = "runs in the lab (root, network): make test"]
fn what_the_kernel_would_refuse_is_not_kept(#[case] source: Source, #[case] why: &str) {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("odd", "1.0", source);
    lab.run(["install", "odd/1.0", "-k", release]).exits(7).says(why);
    lab.assert_not_installed("odd", release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_may_stay_open_may_stay_open() {
    let release = Series::New.release();
    let weak = code("extern int perhaps(void) __attribute__((weak)); return perhaps ? perhaps() : 0;");
    let lab = Lab::new().kernel(Series::New).registered("odd", "1.0", weak);
    lab.run(["install", "odd/1.0", "-k", release]).succeeds();
    lab.assert_installed("odd", "1.0", release);
    lab.run(["verify", "-k", release]).succeeds().says(&format!("odd/1.0, {release}, x86_64: verified"));
}

/// The stand-in for the image has no modules.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_of_the_kernels_that_is_not_there_is_told() {
    let release = Series::New.release();
    let source = code("extern int nf_ct_delete(void *, int, int); return nf_ct_delete(0, 0, 0);");
    let lab = Lab::new().kernel(Series::New).registered("odd", "1.0", source);
    lab.run(["install", "odd/1.0", "-k", release]).succeeds();
    lab.run(["verify", "-k", release])
        .exits(1)
        .says("it needs what no module has that would be loaded before it: nf_ct_delete of nf_conntrack");
}

/// user needs what provider has; the two know nothing of each other while they are built.
fn provider_and_user() -> Lab {
    let provider = code(
        "return 0; } int provided(void); int provided(void) { return 0; } \
                         EXPORT_SYMBOL_GPL(provided); static int __maybe_unused other(void) { return 0;",
    );
    let user = made("extern int provided(void); return provided();", "KBUILD_MODPOST_WARN=1", "");
    Lab::new().kernel(Series::New).registered("provider", "1.0", provider).registered("user", "1.0", user)
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_may_need_what_another_one_brings() {
    let release = Series::New.release();
    let lab = provider_and_user();
    lab.run(["install", "user/1.0", "-k", release]).exits(7).says("the kernel does not have: provided");
    lab.run(["install", "provider/1.0", "-k", release]).succeeds();
    lab.run(["install", "user/1.0", "-k", release]).succeeds();
    lab.run(["verify", "-k", release]).succeeds().says("user/1.0").says("provider/1.0");

    // The file goes without depmod; then depmod finds nobody who has the symbol.
    let provider = format!("/lib/modules/{release}/updates/dkms/provider.ko");
    lab.sh(&format!("rm {provider}")).succeeds();
    lab.run(["verify", "user", "-k", release])
        .exits(1)
        .says(&format!("it needs {provider}: it is not there"));
    lab.sh(&format!("depmod {release} || true")).succeeds();
    lab.run(["verify", "user", "-k", release])
        .exits(1)
        .says("it needs what the kernel does not have: provided");
}

/// Whatever became of a module after it was installed.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_installed_module_that_was_changed_holds_its_kernel() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("odd", "1.0", code(PRINTS).critical());
    lab.write(&format!("boot/initrd.img-{release}"), "an image");
    lab.sh("touch -d '+1 hour' /boot/initrd.img-*").succeeds();
    lab.run(["install", "odd/1.0", "-k", release]).succeeds();
    lab.run(["verify", "-k", release]).succeeds().says("verified (needed to boot");
    let perl = OTHER_VERSION.trim_start_matches("&& ").replace("\\\\", "\\").replace("\\$", "$");
    lab.sh(&format!("cd /lib/modules/{release}/updates/dkms; {perl}")).succeeds();
    lab.run(["verify", "-k", release])
        .exits(1)
        .says("it was built for other versions of what it uses: _printk");
}

/// The real modules of a real kernel, all of them needed to boot.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn every_module_of_a_real_kernel_is_fit() {
    let release = Series::New.cloud_release();
    let lab = Lab::new().image(release).headers(release).registered("foo", "1.0", good());
    lab.sh(&format!("depmod {release}")).succeeds();
    let listed =
        lab.sh(&format!("sed 's/.*\\/\\([^/]*\\).ko:.*/\"\\1\",/' /lib/modules/{release}/modules.dep"));
    let names = listed.stdout();
    assert!(names.lines().count() > 1000, "{listed}");
    lab.write(
        "etc/dkms/policy.toml",
        &format!("[boot]\ncritical = [{names}]\n[initramfs]\ngenerator = \"none\"\n"),
    );
    let verified = lab.run(["verify", "-k", release]);
    let text = verified.stdout();
    // ksmbd wishes for modules that do not exist.
    let objections: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("NOT LOADABLE") || line.contains("Warning"))
        .filter(|line| !line.contains("ksmbd asks for"))
        .collect();
    assert_eq!(objections, [""; 0]);
    assert_eq!(verified.code(), 0);
    assert_eq!(text.lines().filter(|line| line.contains(": verified")).count(), names.lines().count());
}
