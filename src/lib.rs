// SPDX-License-Identifier: MIT OR Apache-2.0
//! dkms-hooks: a drop-in for dkms that never lets a machine boot into a kernel that lacks the
//! modules it needs.
//!
//! # The way data flows
//!
//! ```text
//! main ─ cli ───────┐                     ┌─ plan       which modules, in which order
//!                   ├─ commands ──────────┼─ build      patch, make (one jobserver), verify, sign
//! main ─ hook ──────┘  one file per verb; ├─ install    staged swap, one depmod per kernel
//!   what package       run.rs is one run  ├─ initramfs  at most once per kernel
//!   managers call      for one kernel     ├─ gate       proof → verdict → hold or release
//!                                         ├─ package    archives, packages, driver disks, extensions
//!                                         └─ trial      a view of the system with packages in it
//!
//! below them: store; tree, conf, kernel, machine, module, module_file; below those: sys
//! ```
//!
//! Nothing calls upwards, and the rooms right of `commands` do not call each other, except that
//! `gate` asks `initramfs` where a kernel's images are and what they hold. `conf` and `plan` are
//! pure; `sys::root` is the only maker of absolute paths, `sys::tools` the only runner of programs,
//! `sys::report` the only printer, `main` the only place that exits. [`failure::Failure`] holds
//! every message and exit code that scripts know from dkms.
//!
//! # One run for one kernel (`commands/run.rs`; the work on its modules in `engine.rs`)
//!
//! 1. The kernel is marked *pending* if anything that the machine needs to boot is registered.
//! 2. Workers take modules in dependency order: build under the module's lock, install under the
//!    kernel's; a failure is the module's own and of what depends on it.
//! 3. One depmod. If it fails, every swap of the run is undone.
//! 4. One initramfs, if a module asks for it (REMAKE_INITRD, or it is boot-critical) and nobody
//!    else makes one after us. No lock is held: generators call hooks, which call us.
//! 5. The verdict, from what is really there ([`gate::proof`]), not from what the run believes.
//!
//! # Changes and crashes
//!
//! Every change to the install tree or the dkms tree is a [`tree::transaction`]: staged beside its
//! place, journalled, swapped in by rename, the old content kept until the end. Each run that
//! changes something first finishes what a dead one left. Locks are flock(2) on files in
//! `.hooks/locks`, taken in the order module, kernel; none can go stale.
//!
//! # What was built before (`store`)
//!
//! A build that succeeds is stored under a digest of all that it depends on: the kernel's headers,
//! the module's sources and conf, compilers, environment, installed dependencies
//! (`build/stored.rs`). The next one with the same inputs takes the modules from there, is checked,
//! signed and kept like any other, and says and leaves the same. What cannot be told in advance is
//! compiled. What the kept modules were made of is noted ([`tree::made`]), so that `dkms doctor` can tell
//! which of them would be made otherwise today.
//!
//! Machines may share what was built ([`store::remote`]): signed artefacts under a name that can be told
//! without headers or a compiler ([`store::artefact`]), looked for before anything is compiled and,
//! where there are no headers, before that fails (`build/shared.rs`).
//!
//! # Builds are kept from the machine
//!
//! What a module's conf has us run (`build/sandbox.rs`) is another user's, in namespaces and under
//! Landlock ([`sys::confine`]): a thread of ours is confined, starts one program and ends. What was lent
//! to that user is looked at when its programs have ended, links out of it not followed, and is root's again.
//!
//! # Records
//!
//! What a run changes is noted where it happens (`commands/record.rs`) and kept ([`tree::runs`]), with
//! how it was called (`commands/call.rs`). A replay (`hook/replay.rs`) sends that through the same
//! door again, in this process: whatever asks for the environment, the running kernel or standard input
//! asks the session, which has the recorded ones then. The session also knows that a person calls, so
//! that a hook calls those who would have come after it (`commands/after.rs`): the kernel's further
//! hooks, kernel-install. In these our own part is passed over; what they change has its own record.
//!
//! # The gate
//!
//! What a kernel needs to boot is said by the policy and by modules, and found out by looking at the
//! running machine ([`gate::detect`]): what carries its file systems, down to the hardware.
//!
//! A verdict (`.hooks/verdicts/K.json`) is `pending`, `proven`, `held` or, by an administrator's
//! word, `released`. Kernels without one are left alone. Whoever is about to publish a kernel asks:
//! the kernel-install plugins end with 77, GRUB's last script prints a default that may boot,
//! Debian's postinst.d fails where neither holds; entries that are in a menu already are taken out
//! ([`gate::bls`]). They look again at what is not proven, so a kernel that was mended without us is
//! freed. [`gate::proof`] looks whether everything is there, [`gate::next_boot`] foretells what comes
//! up.
//!
//! # Trial builds
//!
//! Before a package manager unpacks a kernel, `hook/preflight.rs` has another process of ours do
//! that where nobody sees it ([`trial`]: overlays in a mount namespace) and build there
//! (`commands/trial.rs`). Only what was built and the verdict outlive it.
//!
//! # Packages that are upgraded
//!
//! Their scripts remove the old version first. Its modules stay installed under a record
//! ([`tree::retained`]) until the new one's are in place or the package is gone.

pub mod build;
pub mod cli;
pub mod commands;
pub mod conf;
pub mod failure;
pub mod gate;
pub mod hook;
pub mod initramfs;
pub mod install;
pub mod kernel;
pub mod machine;
pub mod module;
pub mod module_file;
pub mod package;
pub mod plan;
pub mod store;
pub mod sys;
pub mod tree;
pub mod trial;

/// Our version, as `dkms --version` prints it behind `dkms-`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
