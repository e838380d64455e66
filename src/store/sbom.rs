// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an artefact is made of, as an SBOM: CycloneDX 1.5 in JSON
//! (<https://cyclonedx.org/docs/1.5/json/>), the first one that knows drivers. Pure.

use std::path::Path;

use serde_json::{Value, json};

use super::artefact::Manifest;

/// The document; `files` are paths and SHA-256 digests of what is shipped. It has no time and no
/// number, so that the same build comes to the same artefact.
pub(super) fn document<'a>(manifest: &Manifest, files: impl Iterator<Item = (&'a Path, &'a str)>) -> Value {
    let Manifest { module, version, kernel, arch, key, made_of, .. } = manifest;
    let property = |name: &str, value: &str| json!({ "name": format!("dkms:{name}"), "value": value });
    let input = |name: &str, digest: &str| {
        json!({
            "type": "data",
            "bom-ref": format!("input:{name}"),
            "name": name,
            "hashes": [{ "alg": "BLAKE3", "content": digest }],
        })
    };
    let mut components = vec![
        input("sources", &made_of.sources),
        input("overlaid", &made_of.overlaid),
        input("kernel-headers", &made_of.headers),
        input("toolchain", &made_of.toolchain),
    ];
    components.extend(files.map(|(path, digest)| {
        let path = path.display().to_string();
        json!({
            "type": "file",
            "bom-ref": format!("file:{path}"),
            "name": path,
            "hashes": [{ "alg": "SHA-256", "content": digest }],
        })
    }));
    let licenses: std::collections::BTreeSet<&str> =
        manifest.modules.iter().filter_map(|module| module.license.as_deref()).collect();
    let licenses: Vec<Value> =
        licenses.into_iter().map(|name| json!({ "license": { "name": name } })).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{ "type": "application", "name": "dkms-hooks", "version": crate::VERSION }],
            },
            "component": {
                "type": "device-driver",
                "bom-ref": format!("{module}/{version}"),
                "name": module,
                "version": version,
                "licenses": licenses,
                "properties": [
                    property("kernel", kernel),
                    property("arch", arch),
                    property("key", key),
                ],
            },
        },
        "components": components,
        "dependencies": [{
            "ref": format!("{module}/{version}"),
            "dependsOn": ["input:sources", "input:overlaid", "input:kernel-headers", "input:toolchain"],
        }],
    })
}
