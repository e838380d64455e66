# SPDX-License-Identifier: MIT OR Apache-2.0
"""dnf plugin: has dkms try the modules of kernels that are about to be installed."""

import os
import subprocess

import dnf
import dnf.exceptions

DKMS = "/usr/lib/dkms/hook"


class Dkms(dnf.Plugin):
    name = "dkms"

    def pre_transaction(self):
        """After rpm's own test and before anything is changed; an Error stops dnf."""
        # Modules are tried for this system, not for one that dnf installs elsewhere.
        if self.base.conf.installroot != "/" or not os.access(DKMS, os.X_OK):
            return
        # One that was named on the command line may have a relative path.
        paths = [os.path.abspath(package.localPkg()) for package in self.base.transaction.install_set]
        asked = subprocess.run(
            [DKMS, "hook", "dnf", "preflight"], input="".join(path + "\n" for path in paths), text=True
        )
        if asked.returncode == 1:
            raise dnf.exceptions.Error("dkms has stopped this transaction, see above")
