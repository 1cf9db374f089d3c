//! What `verify` says of checkpoints that are sound, and of those that are not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use thalweg_io::checkpoint::{LocalDisk, Metadata, read_metadata};

use crate::checkpoints::{good, json, run, two};

/// Checks that `verify` fails with 1 and one line that names what it should.
fn damaged(path: &str, file: &Path, what: &str) {
    let (out, _, code) = run(&["verify", path]);
    assert_eq!(code, Some(1), "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(out.contains(": damaged: ") && out.contains(name) && out.contains(what), "{what}: {out}");
    let (out, _, code) = run(&["verify", path, "--json"]);
    let said: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["sound"]), (Some(1), &false.into()));
    assert!(said["damage"]["what"].as_str().is_some_and(|text| text.contains(what)), "{said}");
}

/// The file that a checkpoint names first.
fn file_of(path: &str) -> PathBuf {
    let metadata = read_metadata(&LocalDisk, Path::new(path)).expect("sound");
    Path::new(path).join(&metadata.files[0].path)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("a file");
    bytes[at] ^= 1;
    fs::write(file, bytes).expect("written");
}

#[test]
fn when_checkpoints_are_sound_then_each_is_said_to_be() {
    let (dir, [first, _]) = two();
    let text = good(&["verify", &dir.path().display().to_string()]);
    assert_eq!(text.lines().filter(|line| line.contains(": sound, ")).count(), 2, "{text}");
    let said = json(&["verify", &first, "--json"]);
    assert_eq!([&said["sound"], &said["files"]], [&serde_json::json!(true), &serde_json::json!(2)]);
}

#[test]
fn when_a_file_is_damaged_then_it_is_named_with_the_place_and_what_is_wrong() {
    let (_dir, [first, _]) = two();
    let file = file_of(&first);
    flip(&file, 5000);
    damaged(&first, &file, "is damaged at byte");
    let bytes = fs::read(&file).expect("a file");
    fs::write(&file, &bytes[..bytes.len() - 100]).expect("written");
    damaged(&first, &file, "no footer");
    fs::remove_file(&file).expect("removed");
    damaged(&first, &file, "is missing");
}

#[test]
fn when_metadata_is_damaged_then_other_checkpoints_are_still_checked() {
    let (dir, [first, second]) = two();
    let metadata = Path::new(&second).join("_metadata");
    flip(&metadata, 100);
    damaged(&second, &metadata, "is damaged at byte");
    let (out, err, code) = run(&["verify", &dir.path().display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(out.contains(&format!("{first}: sound")) && out.contains(&format!("{second}: damaged")), "{out}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let listed = good(&["ls", &dir.path().display().to_string()]);
    assert!(listed.contains("not usable: ") && listed.contains("_metadata is damaged at byte"), "{listed}");
}

#[test]
fn when_a_checkpoint_was_cut_short_then_it_is_no_checkpoint_and_no_damage() {
    let (_dir, [first, second]) = two();
    let job_dir = Path::new(&first).parent().expect("the job's").to_path_buf();
    let cut_short = job_dir.join("chk-3");
    fs::create_dir(&cut_short).expect("made");
    fs::write(cut_short.join("0-1"), "half").expect("written");
    let path = job_dir.display().to_string();
    let text = good(&["verify", &path]);
    assert!(text.contains(&format!("{}: not complete: no checkpoint\n", cut_short.display())), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(": sound, ")).count(), 2, "{text}");
    let text = good(&["verify", &path, "--json"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!([&last["complete"], &last["sound"]], [&serde_json::json!(false), &serde_json::Value::Null]);
    // Nor is it listed or suggested.
    let listed = good(&["ls", &path]);
    assert!(listed.lines().count() == 3 && !listed.contains("chk-3"), "{listed}");
    let (_, err, code) = run(&["show", &path]);
    assert!(code == Some(1) && err.contains("chk-2") && !err.contains("chk-3"), "{err}");
    // By its own name it is an error.
    for args in [&["verify"][..], &["show"], &["ls"]] {
        let (_, err, code) = run(&[args, &[&cut_short.display().to_string()]].concat());
        assert!(code == Some(1) && err.contains("there is no checkpoint in"), "{args:?}: {err}");
    }
    // Damage beside it counts all the same.
    flip(&Path::new(&second).join("_metadata"), 100);
    assert_eq!(run(&["verify", &path]).2, Some(1));
}

#[test]
fn when_a_file_is_no_regular_one_then_it_is_damage_and_nobody_waits_for_it() {
    let pipe = |path: &Path| {
        fs::remove_file(path).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(made.success());
    };
    let (_dir, [first, second]) = two();
    let metadata = Path::new(&second).join("_metadata");
    pipe(&metadata);
    damaged(&second, &metadata, "it is no regular file");
    let file = file_of(&first);
    pipe(&file);
    damaged(&first, &file, "it is no regular file");
    let (_, err, code) = run(&["show", &second]);
    assert!(code == Some(1) && err.contains("it is no regular file"), "{err}");
}

#[test]
fn when_every_byte_is_as_written_and_makes_no_sense_then_that_is_damage_too() {
    let (_dir, [first, _]) = two();
    let path = Path::new(&first);
    let original = read_metadata(&LocalDisk, path).expect("sound");
    let write = |change: &dyn Fn(&mut Metadata)| {
        let mut metadata = original.clone();
        change(&mut metadata);
        fs::write(path.join("_metadata"), metadata.encode().expect("within limits")).expect("written");
    };
    let states = |metadata: &mut Metadata, change: &dyn Fn(&mut thalweg_io::checkpoint::NamedState)| {
        for subtask in &mut metadata.operators[0].subtasks {
            subtask.states.iter_mut().filter(|state| state.name == "bids").for_each(change);
        }
    };
    write(&|metadata| states(metadata, &|state| state.schema[40] ^= 0xff));
    damaged(&first, &path.join("_metadata"), "state bids of operator bids, subtask 0: ");
    // The types of another state.
    let other = original.operators[0].subtasks[0].states.iter().find(|state| state.name == "maps").expect("maps");
    write(&|metadata| states(metadata, &|state| state.schema = other.schema.clone()));
    damaged(&first, &file_of(&first), "the state was written for another type");
    // An image that is not where it should be.
    let shift = |state: &mut thalweg_io::checkpoint::NamedState| {
        if let thalweg_io::checkpoint::Place::File { offset, bytes, .. } = &mut state.parts[0].place {
            (*offset, *bytes) = (*offset + 8, *bytes - 8);
            state.parts[0].groups.clear();
        }
    };
    write(&|metadata| states(metadata, &shift));
    damaged(&first, &file_of(&first), "no image of a state table");
}
