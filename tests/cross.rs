// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules for another architecture, with Debian's headers for it and its cross compiler.

mod common;

use common::{ARCH, Lab, Series, good};
use rstest::rstest;

/// Another architecture than this machine's: uname's name, Debian's, the toolchain, its package.
fn other() -> (&'static str, &'static str, &'static str, &'static str) {
    match ARCH {
        "aarch64" => ("x86_64", "amd64", "x86_64-linux-gnu", "gcc-x86-64-linux-gnu"),
        _ => ("aarch64", "arm64", "aarch64-linux-gnu", "gcc-aarch64-linux-gnu"),
    }
}

fn lab() -> (Lab, String) {
    let (_, debian, ..) = other();
    let native = Series::New.release();
    Lab::new().headers(native).source("odd", "1.0", good()).foreign_headers(native, debian)
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_is_built_and_installed_for_another_architecture() {
    let (arch, _, toolchain, package) = other();
    let (lab, release) = lab();
    let lab = lab.packages_and_dependencies(&[package]);
    let elf = |file: &str| lab.sh(&format!("{toolchain}-readelf -h {file}"));

    lab.run(["build", "odd/1.0", "-k", &release, "-a", arch]).succeeds();
    let built = format!("/var/lib/dkms/odd/1.0/{release}/{arch}");
    let machine = if arch == "aarch64" { "AArch64" } else { "X86-64" };
    elf(&format!("{built}/module/odd.ko")).succeeds().says(machine);
    lab.sh(&format!("cat {built}/log/make.log")).says(&format!("CROSS_COMPILE={toolchain}-"));

    // Its module tree is the headers package's.
    lab.run(["install", "odd/1.0", "-k", &format!("{release}/{arch}")]).succeeds();
    lab.run(["status"]).says(&format!("odd/1.0, {release}, {arch}: installed"));
    lab.sh(&format!("modinfo -k {release} odd")).succeeds().says(&format!("vermagic:       {release} "));

    // Headers that lie elsewhere, of a kernel that is not here.
    let headers = format!("/usr/src/linux-headers-{release}");
    lab.run(["build", "odd/1.0", "-k", "some", "-a", arch, "--kernelsourcedir", &headers]).succeeds();
    elf(&format!("/var/lib/dkms/odd/1.0/some/{arch}/module/odd.ko")).succeeds().says(machine);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_compilers_package_is_named() {
    let (arch, _, toolchain, package) = other();
    let (lab, release) = lab();
    lab.run(["build", "odd/1.0", "-k", &release, "-a", arch])
        .exits(10)
        .says(&format!("{toolchain}-gcc is not installed"))
        .says(&format!("apt install {package}"));
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn headers_of_this_machine_are_for_no_other() {
    let (arch, ..) = other();
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).source("odd", "1.0", good());
    lab.run(["build", "odd/1.0", "-k", release, "-a", arch])
        .exits(21)
        .says(&format!("are for {ARCH}, not for {arch}"));
}
