//! What the subcommands print.

use serde_json::{Value, json};

use crate::checkpoints::{good, job, json as run_json, run, two};

/// The state of that name in what `show` or `diff` printed.
fn state<'j>(shown: &'j Value, name: &str) -> &'j Value {
    let states = shown["operators"][0]["states"].as_array().expect("states");
    states.iter().find(|state| state["name"] == name).expect("the state")
}

#[test]
fn when_listed_then_every_checkpoint_is_there_whatever_directory_is_named() {
    let (dir, [first, second]) = two();
    let job_dir = dir.path().join(job().to_string());
    for path in [dir.path(), &job_dir] {
        let listed = run_json(&["ls", &path.display().to_string(), "--json"]);
        let listed = listed.as_array().expect("a list");
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0]["path"], first.as_str());
        assert_eq!(listed[0]["kind"], "checkpoint");
        assert_eq!(listed[1]["kind"], "incremental checkpoint");
        assert_eq!(listed[1]["checkpoint"], 2);
        assert_eq!(listed[1]["time"], "2023-11-14T22:13:20Z");
        assert_eq!(listed[1]["job_name"], "orders");
        assert_eq!([&listed[0]["files"], &listed[1]["files"]], [2, 4]);
        assert!(listed[1]["state_bytes"].as_u64() > listed[0]["state_bytes"].as_u64());
    }
    let text = good(&["ls", &first, &second]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("checkpoint  kind "), "{text}");
    assert!(lines[2].starts_with("2           incremental checkpoint  2023-11-14T22:13:20Z  orders"), "{text}");
    assert!(lines[2].ends_with(&second), "{text}");
}

#[test]
fn when_shown_then_operators_states_types_and_sizes_are_there() {
    let (_dir, [first, second]) = two();
    let text = good(&["show", &format!("{first}/_metadata"), "--key-groups"]);
    for expected in [
        "checkpoint 1 of job orders (id ",
        "operator Bids per auction: ",
        "uid bids, id ",
        "parallelism 2 of 16",
        "subtask 1: ",
        "state bids: value by key, 100 rows, ",
        "    key u64\n    value Bid { price: u64, channel: Option<String>, kind: Kind { Plain | Limit(f32) | Until { ts: i64 } } }\n",
        "state maps: map by key, 100 rows, ",
        "    user key String\n",
        "state timers: timers, 100 rows",
        "    key (u64, i64, i64)\n",
        "state in flight: records in flight, ",
        "state untyped: union list, 4 rows, ",
        "types unknown: stored without them",
        "    key group 15  ",
        "  all states\n    key group 0  ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let shown = run_json(&["show", &second, "--key-groups", "--json"]);
    let bids = state(&shown, "bids");
    assert_eq!(bids["increments"], 1);
    assert_eq!(bids["types"]["value"]["type"], "Bid");
    let price = &bids["types"]["value"]["fields"][0];
    assert_eq!([&price["name"], &price["type"]], ["price", "u64"]);
    assert_eq!([&price["offset"], &price["size"]], [0, 8]);
    let subtasks = shown["operators"][0]["subtasks"].as_array().expect("subtasks");
    let bytes = |value: &Value| value["bytes"].as_u64().expect("bytes");
    let sum: u64 = subtasks.iter().map(bytes).sum();
    assert_eq!(sum + b"splits".len() as u64, bytes(&shown["operators"][0]));
    let states: u64 = shown["operators"][0]["states"].as_array().expect("states").iter().map(bytes).sum();
    assert_eq!(states, sum);
    let groups = bids["key_groups"].as_array().expect("groups");
    let keys = |value: &Value| value["keys"].as_u64().expect("keys");
    assert_eq!(groups.iter().map(keys).sum::<u64>(), 100, "one more and one less");
    assert!(groups.iter().map(bytes).sum::<u64>() <= bytes(bids));
    let all = shown["operators"][0]["key_groups"].as_array().expect("groups");
    assert_eq!((all.len(), all.iter().map(keys).sum::<u64>()), (16, 100 + 100 + 99 + 3 + 3));
    let spans = bids["spans"].as_array().expect("spans");
    assert!(spans.iter().any(|span| span["first"] == 0 && span["last"] == 7), "{spans:?}");
}

#[test]
fn when_entries_are_shown_then_they_are_json_of_their_types() {
    let (_dir, [first, second]) = two();
    let shown = run_json(&["show", &second, "--entries", "--limit", "0", "--operator", "Bids per auction", "--json"]);
    let entries = |name: &str| state(&shown, name)["entries"].as_array().expect("entries").clone();
    let bids = entries("bids");
    assert_eq!(bids.len(), 100, "one more and one less");
    let bid = |key: u64| bids.iter().find(|entry| entry["key"] == key).map(|entry| entry["value"].clone());
    assert_eq!(bid(1), None);
    assert_eq!(bid(2), Some(json!({"price": 30, "channel": null, "kind": "Plain"})));
    assert_eq!(bid(4), Some(json!({"price": 40, "channel": "channel 4", "kind": {"Limit": 0.1}})));
    assert_eq!(bid(5), Some(json!({"price": 50, "channel": null, "kind": {"Until": {"ts": -1}}})));
    assert_eq!(bid(100).map(|bid| bid["price"].clone()), Some(1000.into()));
    let maps = entries("maps");
    let mut of_7 =
        maps.iter().find(|entry| entry["key"] == 7).expect("key 7")["entries"].as_array().expect("a map").clone();
    of_7.sort_by_key(|entry| entry["key"].to_string());
    assert_eq!(of_7, [json!({"key": "nan", "value": "NaN"}), json!({"key": "one", "value": 1.5})]);
    let list = json!({"key": "a", "values": [[1, "x"], [2, "longer than what lies in place"]]});
    assert!(entries("lists").contains(&list), "{:?}", entries("lists"));
    let timers = entries("timers");
    assert_eq!(timers.len(), 99, "a deleted timer is none");
    assert!(timers.contains(&json!({"key": 3, "namespace": 0, "timestamp": 1003})));
    assert_eq!(entries("offsets").len(), 4);
    assert_eq!(entries("offsets")[2], json!({"value": [1, "first"]}));
    assert_eq!(entries("rules").len(), 2, "what all have alike is shown once");
    assert_eq!(entries("in flight").len(), 0);
    assert!(entries("untyped")[0]["value"].as_str().expect("digits").starts_with("0x"));
    // Fields come as they are declared; as many entries as were asked for.
    let text = good(&["show", &first, "--entries", "--limit", "3", "--operator", "bids", "--state", "bids"]);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("{\"key\":")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("\"value\":{\"price\":") && lines[0].contains(",\"channel\":"), "{text}");
}

#[test]
fn when_a_key_is_looked_up_then_what_the_state_holds_for_it_is_printed() {
    let (_dir, [first, second]) = two();
    let get = |path: &str, state: &str, key: &str| {
        run_json(&["get", path, "--operator", "bids", "--state", state, "--key", key, "--json"])
    };
    assert_eq!(
        get(&first, "bids", "2"),
        json!([{"key": 2, "value": {"price": 20, "channel": "channel 2", "kind": {"Until": {"ts": -1}}}}])
    );
    assert_eq!(get(&second, "bids", "2")[0]["value"]["price"], 30);
    assert_eq!(get(&second, "lists", "\"b\"")[0]["values"][0], json!([1, "x"]));
    // The stream's key alone, or all of it.
    let window = json!([{"key": ["c", 60_000], "value": 7}]);
    assert_eq!([get(&first, "windows", "\"c\""), get(&first, "windows", "[\"c\", 60000]")], [window.clone(), window]);
    assert_eq!(get(&first, "timers", "9"), json!([{"key": 9, "namespace": 0, "timestamp": 1009}]));
    for key in (3..100u64).step_by(7) {
        assert_eq!(get(&second, "bids", &key.to_string())[0]["key"], key);
    }
    let text = good(&["get", &first, "--operator", "bids", "--state", "bids", "--key", "3"]);
    assert_eq!(text, "{\"key\":3,\"value\":{\"price\":30,\"channel\":null,\"kind\":\"Plain\"}}\n");
}

#[test]
fn when_a_user_key_is_given_then_the_one_entry_of_the_map_is_printed() {
    let (_dir, [first, second]) = two();
    let get = |path: &str, key: &str, user_key: &str, more: &[&str]| {
        let args = ["get", path, "--operator", "bids", "--state", "maps", "--key", key, "--user-key", user_key];
        run(&[&args[..], more].concat())
    };
    for key in (0..100u64).step_by(9) {
        let (out, err, code) = get(&second, &key.to_string(), "\"one\"", &["--json"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let said: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(said, json!([{"key": key, "user_key": "one", "value": 1.5}]));
    }
    let (out, err, code) = get(&first, "7", "\"nan\"", &[]);
    assert_eq!(
        (out.as_str(), err.as_str(), code),
        ("{\"key\":7,\"user_key\":\"nan\",\"value\":\"NaN\"}\n", "", Some(0))
    );
    for (key, user_key, expected) in [
        ("7", "\"two\"", "state maps has nothing for user key \"two\" of key 7"),
        ("1234", "\"one\"", "state maps has nothing for key 1234"),
        ("7", "1", "`1` is no user key of this state: give JSON of type String"),
        ("7", "one", "`one` is no user key of this state: give JSON of type String"),
        ("-7", "\"one\"", "`-7` is no key of this state: give JSON of type u64"),
    ] {
        let (out, err, code) = get(&first, key, user_key, &["--json"]);
        assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
        assert!(err.contains(expected) && err.lines().count() == 1, "{expected}: {err}");
    }
    for (state, key, kind) in [
        ("bids", "2", "state bids is no map, it is value by key: leave --user-key out"),
        ("lists", "\"b\"", "is no map, it is list by key"),
        ("timers", "9", "is no map, it is timers"),
        ("rules", "1", "state rules has no keys"),
    ] {
        let args = ["get", &first, "--operator", "bids", "--state", state, "--key", key, "--user-key", "\"one\""];
        let (out, err, code) = run(&args);
        assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
        assert!(err.contains(kind), "{kind}: {err}");
    }
}

#[test]
fn when_two_are_compared_then_what_has_changed_is_counted_and_shown() {
    let (_dir, [first, second]) = two();
    let diff = run_json(&["diff", &first, &second, "--entries", "--json"]);
    let bids = state(&diff, "bids");
    assert_eq!([&bids["added"], &bids["removed"], &bids["changed"], &bids["unchanged"]], [1, 1, 1, 98]);
    let of = |change: &str| {
        let entries = bids["entries"].as_array().expect("entries").clone();
        entries.into_iter().find(|entry| entry["change"] == change).expect("such a change")
    };
    assert_eq!(of("added")["entry"]["key"], 100);
    assert_eq!(of("removed")["entry"]["key"], 1);
    assert_eq!([&of("changed")["before"]["value"]["price"], &of("changed")["after"]["value"]["price"]], [20, 30]);
    let timers = state(&diff, "timers");
    assert_eq!([&timers["added"], &timers["removed"], &timers["unchanged"]], [0, 1, 99]);
    for same in ["maps", "lists", "windows", "offsets", "untyped"] {
        let state = state(&diff, same);
        assert_eq!([&state["added"], &state["removed"], &state["changed"]], [0, 0, 0], "{same}");
    }
    let text = good(&["diff", &second, &first, "--operator", "bids", "--state", "bids"]);
    assert!(text.contains("    1 added, 1 removed, 1 changed, 98 unchanged\n") && !text.contains("maps"), "{text}");
    let same = good(&["diff", &first, &first, "--state", "bids"]);
    assert!(same.contains("0 added, 0 removed, 0 changed, 100 unchanged"), "{same}");
}

#[test]
fn when_something_is_not_there_then_the_message_says_what_there_is() {
    let (dir, [first, second]) = two();
    let said = |args: &[&str]| {
        let (out, err, code) = run(args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}");
        assert_eq!(err.lines().count(), 1, "{err}");
        err
    };
    let path = dir.path().display().to_string();
    let err = said(&["show", &path]);
    assert!(err.contains("holds several checkpoints: name one, such as") && err.contains("chk-2"), "{err}");
    let empty = tempfile::tempdir().expect("a directory");
    assert!(said(&["ls", &empty.path().display().to_string()]).contains("there is no checkpoint in"));
    assert!(said(&["ls", "no/such/directory"]).contains("no/such/directory cannot be read"));
    let err = said(&["show", &first, "--operator", "bid"]);
    assert!(err.contains("there is no operator `bid`, only bids"), "{err}");
    for more in [&[][..], &["--operator", "bids"]] {
        let err = said(&[&["diff", &first, &second, "--state", "nope"], more].concat());
        assert!(err.contains("there is no state `nope`, only "), "{err}");
    }
    let get = |state, key| said(&["get", &first, "--operator", "bids", "--state", state, "--key", key]);
    assert!(get("bid", "1").contains("there is no state `bid`, only offsets, rules, parts"));
    assert!(get("bids", "1234").contains("state bids has nothing for key 1234"));
    assert!(get("bids", "-1").contains("`-1` is no key of this state: give JSON of type u64"));
    assert!(get("windows", "{").contains("give JSON of type (String, i64)"));
    assert!(get("rules", "1").contains("state rules has no keys"));
}
