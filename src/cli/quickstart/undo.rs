//! Undoes a quickstart: stops the node, and removes its files and the profile.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::background;
use super::place::{Made, Place};
use super::service;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::OutputArgs;
use crate::cli::profile;
use crate::cli::profiles::Profiles;

/// Returns the directory whose quickstart is undone: the given one, or a default one in which there is one.
///
/// # Errors
/// If this user has no default directory.
pub fn place(dir: Option<&Path>) -> Result<Place, Failure> {
    let of_service = Place::of_service();
    match dir {
        None if matches!(of_service.made(), Ok(Some(_))) => Ok(of_service),
        dir => Place::of_user(dir),
    }
}

/// Stops the node and removes everything.
///
/// # Errors
/// If nothing was made there, or a step fails: the same command continues then.
pub fn run(place: &Place, output: OutputArgs) -> Result<(), Failure> {
    let dir = place.dir().display();
    let made = place.made()?.ok_or_else(|| {
        let next = "name the directory of the quickstart with --dir";
        Failure::new(Exit::NotFound, format!("{dir}: there is no quickstart here; nothing was changed"), next)
    })?;
    let (is_gone, mut removed) = undo(place, &made)?;
    removed.extend([dir.to_string(), format!("profile {}", made.profile)]);
    let left = if is_gone { "" } else { "\nOther files are left in the directory." };
    output.confirm(
        || format!("The node is stopped. Removed: {}{left}\n", removed.join(", ")),
        || json!({ "dir": place.dir(), "profile": made.profile, "is_gone": is_gone }),
    );
    Ok(())
}

/// Undoes the steps before a failed one, and adds to the failure what could not be undone.
pub fn after_failure(place: &Place, made: &Made, failure: Failure) -> Failure {
    match undo(place, made) {
        Ok(_) => Failure { message: format!("{}\nAll files of this attempt are removed.", failure.message), ..failure },
        Err(undone) => Failure {
            message: format!("{}\nThis attempt could not be undone: {}", failure.message, undone.message),
            next: "`seriatim quickstart --undo` tries again".to_owned(),
            ..failure
        },
    }
}

/// Returns false if other files are left in the directory, and what was removed outside of it.
fn undo(place: &Place, made: &Made) -> Result<(bool, Vec<String>), Failure> {
    let removed = if made.is_service {
        service::stop(place)?
    } else {
        background::stop(place, made.pid)?;
        Vec::new()
    };
    let file = profile::file()?;
    let mut profiles = Profiles::load(&file)?;
    // The profile may be another one of this name by now.
    let certs = place.certs().display().to_string();
    if profiles.all.get(&made.profile).is_some_and(|profile| profile.text("certs") == Some(certs.as_str())) {
        profiles.all.remove(&made.profile);
        if profiles.current.as_deref() == Some(made.profile.as_str()) {
            profiles.current = None;
        }
        profiles.store(&file)?;
        if profiles == Profiles::default() {
            // Nobody else needs an empty file.
            let _ = fs::remove_file(&file);
            let _ = file.parent().map(fs::remove_dir);
        }
    }
    Ok((place.remove()?, removed))
}
