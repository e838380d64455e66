// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found, for people to read. Pure.

use std::fmt::Write as _;

use super::Treated;

/// The findings and what is to be done, ending with a line that sums up.
pub(super) fn text(treated: &[Treated], repair: bool) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    };
    for Treated { finding, repaired, error, .. } in treated {
        line(format_args!("{}", finding.what));
        line(format_args!("  {}", indented(&finding.why)));
        match error {
            _ if *repaired => line(format_args!("  Mended.")),
            Some(error) => {
                line(format_args!("  NOT MENDED: {}", indented(error)));
                line(format_args!("  To mend it: {}", indented(&finding.remedy)));
            }
            None => line(format_args!("  To mend it: {}", indented(&finding.remedy))),
        }
    }
    let open = treated.iter().filter(|treated| !treated.repaired).count();
    let mendable = treated.iter().filter(|treated| treated.repairable && !treated.repaired).count();
    match (treated.len(), open) {
        (0, _) => line(format_args!("Nothing is wrong, as far as can be seen from here.")),
        (found, 0) => line(format_args!("Found: {found}; all of it is mended now.")),
        (found, open) if repair => line(format_args!("Found: {found}; still to be mended: {open}.")),
        (found, _) if mendable > 0 => {
            line(format_args!("Found: {found}; dkms doctor --repair mends {mendable} of it."));
        }
        (found, _) => line(format_args!("Found: {found}; none of it is for dkms doctor --repair.")),
    }
    text
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Kind, Repair};
    use super::*;
    use rstest::rstest;

    fn treated(repair: bool, repaired: bool, error: Option<&str>) -> Treated {
        let finding = Finding {
            kind: Kind::HalfDone,
            place: "/x".into(),
            what: "What".to_owned(),
            why: "why,\nreally".to_owned(),
            remedy: "type".to_owned(),
            repair: repair.then_some(Repair::Finish),
        };
        Treated { repaired, error: error.map(str::to_owned), ..Treated::new(finding) }
    }

    #[rstest]
    #[case::nothing(vec![], false, "Nothing is wrong, as far as can be seen from here.\n")]
    #[case::to_be_mended(
        vec![treated(true, false, None), treated(false, false, None)],
        false,
        "What\n  why,\n    really\n  To mend it: type\nWhat\n  why,\n    really\n  To mend it: type\n\
         Found: 2; dkms doctor --repair mends 1 of it.\n"
    )]
    #[case::by_hand(
        vec![treated(false, false, None)],
        false,
        "What\n  why,\n    really\n  To mend it: type\nFound: 1; none of it is for dkms doctor --repair.\n"
    )]
    #[case::mended(
        vec![treated(true, true, None)],
        true,
        "What\n  why,\n    really\n  Mended.\nFound: 1; all of it is mended now.\n"
    )]
    #[case::failed(
        vec![treated(true, false, Some("no\nspace"))],
        true,
        "What\n  why,\n    really\n  NOT MENDED: no\n    space\n  To mend it: type\n\
         Found: 1; still to be mended: 1.\n"
    )]
    fn findings_are_told_with_their_remedies(
        #[case] found: Vec<Treated>,
        #[case] repair: bool,
        #[case] want: &str,
    ) {
        assert_eq!(text(&found, repair), want);
    }
}
