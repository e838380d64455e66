// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules as packages: made in one root, installed in another.

use fs_err as fs;

use super::{Lab, Ran, Source};

impl Lab {
    /// Registers a version of a module and builds it for a kernel.
    pub fn built(self, name: &str, version: &str, source: Source, release: &str) -> Self {
        let lab = self.registered(name, version, source);
        lab.run(["build", &format!("{name}/{version}"), "-k", release]).succeeds();
        lab
    }

    /// Copies the one file of a directory that ends like this to `/tmp` of another root; returns its
    /// name.
    #[track_caller]
    pub fn hand_over(&self, directory: &str, ending: &str, to: &Self) -> String {
        let names: Vec<String> = fs::read_dir(self.path(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(ending))
            .collect();
        let [name] = names.as_slice() else { panic!("in {directory} of {self}: {names:?}") };
        to.sh("mkdir -p /tmp; chmod 1777 /tmp; touch /tmp").succeeds();
        fs::create_dir_all(to.path("tmp")).unwrap();
        fs::copy(self.path(directory).join(name), to.path("tmp").join(name)).unwrap();
        name.clone()
    }

    /// Runs a command and fails if the installed file of a module is missing at any time meanwhile.
    #[track_caller]
    pub fn never_without(&self, name: &str, release: &str, command: &str) -> Ran {
        let file = format!("/lib/modules/{release}/updates/dkms/{name}.ko");
        let ran = self.sh(&format!(
            "touch /tmp/watched
             (while [ -e /tmp/watched ]; do [ -e {file} ] || touch /tmp/missed; done) & sleep 0.1
             {command} || {{ rm /tmp/watched; exit 1; }}
             rm /tmp/watched; wait
             [ ! -e /tmp/missed ] || {{ rm /tmp/missed; echo '{file} was missing' >&2; exit 99; }}"
        ));
        ran.succeeds();
        ran
    }

    /// Fails unless the kernel can load what is installed for it.
    #[track_caller]
    pub fn assert_loadable(&self, name: &str, version: &str, release: &str) {
        self.assert_installed(name, version, release);
        self.run(["verify", "-k", release]).succeeds();
    }

    /// Fails if anything of a module is left that its package has brought.
    #[track_caller]
    pub fn assert_nothing_left(&self, name: &str) {
        let left = self.sh(&format!(
            "find /var/lib/dkms/{name} /usr/src/{name}-* /usr/share/{name} /usr/share/{name}-dkms \
             /lib/modules/*/updates 2>/dev/null || true"
        ));
        assert_eq!(left.stdout(), "", "{left}");
    }
}
