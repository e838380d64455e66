// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records of a dkms.conf: one for each file that is built and installed.

use super::directives::{Directives, problem};
use super::exclusive::Exclusive;
use crate::kernel::BadName;

/// One built file and where it goes. Names are without `.ko`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The # of its directives.
    pub index: usize,
    pub built_name: String,
    /// The directory within the build directory, as written: empty, with or without a final slash.
    pub built_location: String,
    pub dest_name: String,
    /// Below `<install tree>/<kernel>`, as written: begins with `/kernel`, `/updates` or `/extra`.
    /// Some distributions replace it.
    pub dest_location: String,
    /// Whether debug information is stripped.
    pub strip: bool,
    /// Its own constraints; those of index 0 are the module's, and hold for every record.
    pub exclusive: Exclusive,
}

/// The directives whose highest index tells how many records there are.
const COUNTED: [&str; 4] =
    ["BUILT_MODULE_NAME", "BUILT_MODULE_LOCATION", "DEST_MODULE_NAME", "DEST_MODULE_LOCATION"];

/// Reads the records and appends what is wrong with them.
pub(super) fn read(from: &Directives, package_name: &str, problems: &mut Vec<String>) -> Vec<Record> {
    let count = COUNTED.iter().filter_map(|name| from.max_index(name)).max().map_or(0, |index| index + 1);
    let mut records = Vec::new();
    for index in 0..count {
        // An index may be any number: a conf with a mad one is wrong already.
        if problems.len() > 100 {
            break;
        }
        let [built_name, built_location, dest_name, dest_location] =
            COUNTED.map(|name| from.element(name, index));
        let built_name =
            built_name.or_else(|| (count == 1).then(|| package_name.to_owned())).unwrap_or_default();
        if built_name.is_empty() && count > 1 {
            problems
                .push(problem(format!("No 'BUILT_MODULE_NAME' directive specified for record #{index}.")));
        }
        let dest_name = dest_name.unwrap_or_else(|| built_name.clone());
        for (name, value) in [("BUILT_MODULE_NAME", &built_name), ("DEST_MODULE_NAME", &dest_name)] {
            let suffixed = value.ends_with(".o") || value.ends_with(".ko");
            // A name that was only taken over is the other directive's fault.
            if suffixed && from.element(name, index).is_some() {
                problems
                    .push(problem(format!("'{name}' directive ends in '.o' or '.ko' in record #{index}.")));
            }
        }
        if !dest_name.is_empty() && BadName::check("module name", &dest_name).is_err() {
            problems
                .push(problem(format!("The module name '{dest_name}' in record #{index} is no file name.")));
        }
        match &dest_location {
            None => problems
                .push(problem(format!("No 'DEST_MODULE_LOCATION' directive specified for record #{index}."))),
            Some(place)
                if !["/kernel", "/updates", "/extra"].iter().any(|start| place.starts_with(start)) =>
            {
                problems.push(problem(format!(
                    "Directive 'DEST_MODULE_LOCATION' does not begin with\n\
                     '/kernel', '/updates', or '/extra' in record #{index}."
                )));
            }
            Some(place) if place.split('/').any(|part| part == "..") => problems.push(problem(format!(
                "Directive 'DEST_MODULE_LOCATION' contains a '..' path component in record #{index}."
            ))),
            Some(_) => {}
        }
        let strip = from.element("STRIP", index).or_else(|| from.element("STRIP", 0));
        records.push(Record {
            index,
            built_name,
            built_location: built_location.unwrap_or_default(),
            dest_name,
            dest_location: dest_location.unwrap_or_default(),
            strip: !strip.is_some_and(|value| value.starts_with(['n', 'N'])),
            exclusive: Exclusive::read(from, index),
        });
    }
    records
}
