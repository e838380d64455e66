// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shared stores send: artefacts, manifests of registries, signatures.

use std::path::{Component, Path};

use dkms_hooks::conf::compressors::Compressors;
use dkms_hooks::module_file::Compression;
use dkms_hooks::store::artefact::Artefact;
use dkms_hooks::store::remote::layers;
use dkms_hooks::store::signature::Trusted;
use dkms_hooks::sys::report::Report;
use dkms_hooks::sys::root::Root;

use super::Target;

pub const TARGETS: &[Target] = &[Target {
    name: "artefact",
    read: artefact,
    words: &[
        "manifest.json",
        "built/",
        "kept/",
        "../",
        "\"members\":{",
        "\"format\":1",
        "\"sha256\":\"",
        "\"digest\":\"sha256:",
        "\"layers\":[",
        "application/vnd.dkms-hooks.module.v1.tar+zstd",
        "99999999999999999999",
        "untrusted comment: ",
        "trusted comment: ",
        "RUQ",
        "==",
    ],
    inputs: 2500,
}];

/// An artefact as it is, and as what is packed in one; a registry's manifest; a signature.
fn artefact(input: &[u8], room: &Path) -> String {
    let unpacked = Artefact::unpack(input);
    let packed = Compression::Zstd.compress(input.to_vec(), &Compressors::default()).unwrap();
    let repacked = Artefact::unpack(&packed);
    for artefact in unpacked.iter().chain(&repacked) {
        let paths = artefact.entry.built.iter().map(|(path, _)| path);
        for path in paths.chain(artefact.entry.kept.iter().map(|(path, ..)| path)) {
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        }
    }
    let trusted = Trusted::read(&Root::at(room), &Report::new(true, false)).unwrap();
    let verified = trusted.verify(b"content", input);
    assert!(verified.is_err());
    let said = |error: Option<&anyhow::Error>| error.map(|error| format!("{error:#}")).unwrap_or_default();
    format!(
        "{} {} {} {}",
        said(unpacked.as_ref().err()),
        said(repacked.as_ref().err()),
        said(layers(input).as_ref().err()),
        said(verified.as_ref().err())
    )
}
