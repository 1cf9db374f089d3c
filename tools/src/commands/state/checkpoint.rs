//! A checkpoint on storage, opened for looking: where it is, what `_metadata` says, and the bytes of its parts.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use thalweg::model::{
    JobId, StateSchema,
    schema::{Schema, SchemaError},
};
use thalweg_io::checkpoint::{
    BlockFile, LocalDisk, METADATA_NAME, Metadata, NamedState, OperatorState, Place, SnapshotKind, StateKind,
    StatePart, read_metadata,
};

use super::error::StateError;

const DISK: &LocalDisk = &LocalDisk;

/// A checkpoint or savepoint.
pub struct Checkpoint {
    /// Its directory.
    pub dir: PathBuf,
    /// What it says of itself.
    pub metadata: Metadata,
    /// Files that have been opened, by their index.
    open: RefCell<HashMap<u32, BlockFile<'static>>>,
}

/// A state of an operator, over all its subtasks.
pub struct State<'c> {
    /// The operator.
    pub operator: &'c OperatorState,
    /// Its name.
    pub name: &'c str,
    /// Its kind.
    pub kind: StateKind,
    /// Its types; an error says why they are not known, `None` that they were not stored.
    pub schema: Result<Option<StateSchema>, SchemaError>,
    /// The subtasks that have it, by index.
    pub subtasks: Vec<(u32, &'c NamedState)>,
}

/// Directories that are called as those of checkpoints and savepoints are.
#[derive(Default)]
pub struct Places {
    /// With `_metadata`, readable or not.
    pub whole: Vec<PathBuf>,
    /// Without: they are being taken, or a kill has cut them short. They are no checkpoints, and no damage.
    pub incomplete: Vec<PathBuf>,
}

/// The directories of checkpoints and savepoints at a path: itself, or those in it and in the jobs' directories in it.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, StateError> {
    let Places { whole, .. } = places(path)?;
    if whole.is_empty() { Err(StateError::NoCheckpoint(path.to_path_buf())) } else { Ok(whole) }
}

/// As [`find`], with what is not complete.
pub fn places(path: &Path) -> Result<Places, StateError> {
    let one = |dir| Places { whole: vec![dir], incomplete: Vec::new() };
    if path.file_name().is_some_and(|name| name == METADATA_NAME) {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        return Ok(one(dir.unwrap_or(Path::new(".")).to_path_buf()));
    }
    if is_whole(path) {
        return Ok(one(path.to_path_buf()));
    }
    let mut found = within(path)?;
    for job in directories(path)? {
        if name_of(&job).parse::<JobId>().is_ok() {
            found.extend(within(&job)?);
        }
    }
    let (whole, incomplete) = found.into_iter().partition(|dir| is_whole(dir));
    Ok(Places { whole, incomplete })
}

/// Whether a directory has `_metadata`, whatever that is.
fn is_whole(dir: &Path) -> bool {
    dir.join(METADATA_NAME).symlink_metadata().is_ok()
}

/// Directories in this one that are called as checkpoints and savepoints are, in their order.
fn within(path: &Path) -> Result<Vec<PathBuf>, StateError> {
    let mut found: Vec<(u64, PathBuf)> = directories(path)?
        .into_iter()
        .filter_map(|dir| {
            let name = name_of(&dir);
            let number = name.strip_prefix("chk-").map(|digits| digits.parse().ok());
            let number = number.unwrap_or_else(|| name.starts_with("savepoint-").then_some(u64::MAX))?;
            Some((number, dir))
        })
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, dir)| dir).collect())
}

fn directories(path: &Path) -> Result<Vec<PathBuf>, StateError> {
    let unreadable = |source| StateError::List { path: path.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

impl Checkpoint {
    /// Opens the one checkpoint at a path.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        match &find(path)?[..] {
            [dir] => Self::read(dir),
            [.., last] => Err(StateError::Many { path: path.to_path_buf(), example: last.clone() }),
            [] => Err(StateError::NoCheckpoint(path.to_path_buf())),
        }
    }

    /// Opens the checkpoint in a directory.
    pub fn read(dir: &Path) -> Result<Self, StateError> {
        let metadata = read_metadata(DISK, dir)?;
        Ok(Self { dir: dir.to_path_buf(), metadata, open: RefCell::default() })
    }

    /// What was taken.
    pub fn kind(&self) -> &'static str {
        match (self.metadata.kind, self.metadata.incremental) {
            (SnapshotKind::Savepoint, _) => "savepoint",
            (SnapshotKind::Checkpoint, true) => "incremental checkpoint",
            (SnapshotKind::Checkpoint, false) => "checkpoint",
        }
    }

    /// When it was triggered, in UTC.
    pub fn time(&self) -> String {
        let ms = self.metadata.timestamp_ms;
        let since = std::time::Duration::from_millis(ms.unsigned_abs());
        let time = if ms < 0 { None } else { std::time::UNIX_EPOCH.checked_add(since) };
        // What no calendar has is shown as it is.
        let years = 60 * 60 * 24 * 365 * 8_000;
        match time.filter(|_| since.as_secs() < years) {
            Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
            None => format!("{ms} ms"),
        }
    }

    /// Bytes of all parts of all states.
    pub fn state_bytes(&self) -> u64 {
        self.metadata.operators.iter().map(operator_bytes).sum()
    }

    /// Bytes of the files on storage.
    pub fn file_bytes(&self) -> u64 {
        self.metadata.files.iter().map(|file| file.written.file_bytes).sum()
    }

    /// The operators that a name selects: by uid, id or name; all, without one.
    pub fn operators(&self, wanted: Option<&str>) -> Result<Vec<&OperatorState>, StateError> {
        let all = &self.metadata.operators;
        let Some(wanted) = wanted else { return Ok(all.iter().collect()) };
        let is_it = |operator: &&OperatorState| {
            operator.uid == wanted || operator.name == wanted || operator.id.to_string() == wanted.to_lowercase()
        };
        let found: Vec<_> = all.iter().filter(is_it).collect();
        if found.is_empty() {
            let there = all.iter().map(title).collect();
            return Err(StateError::NotThere { what: "operator", wanted: wanted.to_owned(), there });
        }
        Ok(found)
    }

    /// The states of operators that a name selects; all, without one.
    pub fn states<'c>(
        &self,
        operators: &[&'c OperatorState],
        wanted: Option<&str>,
    ) -> Result<Vec<State<'c>>, StateError> {
        let all: Vec<State<'_>> = operators.iter().flat_map(|operator| states_of(operator)).collect();
        let Some(wanted) = wanted else { return Ok(all) };
        let there = all.iter().map(|state| state.name.to_owned()).collect();
        let found: Vec<_> = all.into_iter().filter(|state| state.name == wanted).collect();
        if found.is_empty() {
            return Err(StateError::NotThere { what: "state", wanted: wanted.to_owned(), there });
        }
        Ok(found)
    }

    /// Fills `out` from an offset in a part on.
    pub fn read_part(&self, part: &StatePart, offset: u64, out: &mut [u8]) -> Result<(), StateError> {
        match &part.place {
            Place::Inline(bytes) => {
                let from = bytes.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(from.ok_or(thalweg_state::ImageError::NotAnImage)?);
                Ok(())
            }
            Place::File { file, offset: begin, bytes } => {
                if offset.checked_add(out.len() as u64).is_none_or(|end| end > *bytes) {
                    return Err(thalweg_state::ImageError::NotAnImage.into());
                }
                let mut open = self.open.borrow_mut();
                if !open.contains_key(file) {
                    let named = &self.metadata.files[*file as usize];
                    open.insert(*file, BlockFile::open_written(DISK, &self.dir.join(&named.path), &named.written)?);
                }
                let reader = open.get_mut(file).expect("opened above");
                Ok(reader.read_exact_at(begin + offset, out)?)
            }
        }
    }

    /// All bytes of a part.
    pub fn whole_part(&self, part: &StatePart) -> Result<Vec<u8>, StateError> {
        // Nothing is allocated before the file is known to have so many bytes.
        self.read_part(part, 0, &mut [])?;
        let mut bytes = vec![0; part.place.bytes() as usize];
        self.read_part(part, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Where a part lies, for messages.
    pub fn place(&self, state: &State<'_>, subtask: u32, part: Option<&StatePart>) -> String {
        let file = match part.map(|part| &part.place) {
            Some(Place::File { file, offset, .. }) => {
                let path = self.dir.join(&self.metadata.files[*file as usize].path);
                format!("{} from byte {offset} of its payload", path.display())
            }
            _ => self.dir.join(METADATA_NAME).display().to_string(),
        };
        format!("{file}: state {} of operator {}, subtask {subtask}", state.name, title(state.operator))
    }
}

/// How people call an operator.
pub fn title(operator: &OperatorState) -> String {
    if !operator.uid.is_empty() {
        return operator.uid.clone();
    }
    if operator.name.is_empty() { operator.id.to_string() } else { operator.name.clone() }
}

/// Bytes of all states of an operator.
pub fn operator_bytes(operator: &OperatorState) -> u64 {
    let states = operator.subtasks.iter().flat_map(|subtask| &subtask.states);
    states.map(bytes_of).sum::<u64>() + operator.coordinator.len() as u64
}

/// Bytes of a state of a subtask.
pub fn bytes_of(state: &NamedState) -> u64 {
    state.parts.iter().map(|part| part.place.bytes()).sum()
}

fn states_of(operator: &OperatorState) -> Vec<State<'_>> {
    let mut states: Vec<State<'_>> = Vec::new();
    for subtask in &operator.subtasks {
        for named in &subtask.states {
            let known = states.iter_mut().find(|state| state.name == named.name && state.kind == named.kind);
            match known {
                Some(state) => state.subtasks.push((subtask.index, named)),
                None => {
                    let schema = (!named.schema.is_empty()).then(|| StateSchema::decode(&named.schema));
                    states.push(State {
                        operator,
                        name: &named.name,
                        kind: named.kind,
                        schema: schema.transpose(),
                        subtasks: vec![(subtask.index, named)],
                    });
                }
            }
        }
    }
    states
}

impl State<'_> {
    /// What kind of state it is, for people.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            StateKind::KeyedTable => "value by key",
            StateKind::KeyedList => "list by key",
            StateKind::KeyedMap => "map by key",
            StateKind::Timers => "timers",
            StateKind::OperatorList => "operator list",
            StateKind::Union => "union list",
            StateKind::Broadcast => "broadcast",
            StateKind::SourcePosition => "source position",
            StateKind::ChannelState => "records in flight",
            _ => "unknown",
        }
    }

    /// Whether it is an image of a table.
    pub fn is_keyed(&self) -> bool {
        matches!(self.kind, StateKind::KeyedTable | StateKind::KeyedList | StateKind::KeyedMap | StateKind::Timers)
    }

    /// Bytes in all subtasks.
    pub fn bytes(&self) -> u64 {
        self.subtasks.iter().map(|(_, state)| bytes_of(state)).sum()
    }

    /// Rows or elements in all subtasks, those of increments and removals counted too.
    pub fn rows(&self) -> u64 {
        self.subtasks.iter().flat_map(|(_, state)| &state.parts).map(|part| part.rows).sum()
    }

    /// The types, if they are known.
    pub fn types(&self) -> Option<&StateSchema> {
        self.schema.as_ref().ok()?.as_ref()
    }

    /// Key, user key and value, as far as there are such types, each with what it is called.
    pub fn named_types(&self) -> Vec<(&'static str, &Schema)> {
        let value = match self.kind {
            StateKind::KeyedTable | StateKind::KeyedMap | StateKind::Timers => "value",
            _ => "element",
        };
        let Some(StateSchema { key, user_key, value: of_value }) = self.types() else { return Vec::new() };
        [("key", key), ("user key", user_key), (value, of_value)]
            .into_iter()
            .filter_map(|(name, part)| Some((name, part.as_ref()?)))
            .collect()
    }
}
