//! `Configuration`: settings of all layers, checked; and the builder that the layers are put into.

use std::collections::BTreeMap;

use super::{
    error::{ConfigError, Warning},
    ignored,
    keys::{self, Key, KeyInfo},
    options::{EngineOptions, MemoryOptions},
    source::{self, Setting, Source},
    value::ConfigValue,
};

/// Settings, every one of a known key and with a value that it can have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    settings: BTreeMap<&'static str, Setting>,
}

/// Puts layers together. Later kinds win, whatever the order of the calls: files, then `-D`, then the program. Within a
/// kind a later call wins.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationBuilder {
    files: Vec<Vec<Setting>>,
    definitions: Vec<Vec<Setting>>,
    program: Vec<Vec<Setting>>,
}

impl Configuration {
    /// A builder without any layer: everything has its default.
    pub fn builder() -> ConfigurationBuilder {
        ConfigurationBuilder::default()
    }

    /// The value of a key: as set, else its default, else `None`.
    pub fn get<T: ConfigValue>(&self, key: &Key<T>) -> Option<T> {
        self.explicit(key).or_else(|| key.default.map(|text| parsed(key.name, text)))
    }

    /// The value of a key if somebody set it.
    pub fn explicit<T: ConfigValue>(&self, key: &Key<T>) -> Option<T> {
        self.settings.get(key.name).map(|setting| parsed(key.name, &setting.value))
    }

    /// Calls `take` with the value of a key if somebody set it.
    pub(super) fn when_set<T: ConfigValue>(&self, key: &Key<T>, take: impl FnOnce(T)) {
        if let Some(value) = self.explicit(key) {
            take(value);
        }
    }

    /// Adds the settings of another configuration, which count where both have one.
    pub fn overlay(&mut self, later: &Self) {
        self.settings.extend(later.settings.iter().map(|(&name, setting)| (name, setting.clone())));
    }

    /// The value of a key that has a default.
    ///
    /// # Panics
    /// Where it has none.
    pub fn value<T: ConfigValue>(&self, key: &Key<T>) -> T {
        self.get(key).unwrap_or_else(|| panic!("{} has no default", key.name))
    }

    /// Where a key was set; `None`: nowhere.
    pub fn source<T>(&self, key: &Key<T>) -> Option<&Source> {
        self.settings.get(key.name).map(|setting| &setting.source)
    }

    /// Every setting that somebody made: current name, value as written, and where.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &str, &Source)> {
        self.settings.iter().map(|(&name, setting)| (name, setting.value.as_str(), &setting.source))
    }
}

fn parsed<T: ConfigValue>(name: &str, text: &str) -> T {
    T::parse(text).unwrap_or_else(|| panic!("{name} was checked to be a value, but {text:?} is none"))
}

impl ConfigurationBuilder {
    /// Adds a YAML file with nested or dotted keys. Files are read by the caller; `name` is for messages.
    ///
    /// # Errors
    /// Where the text is not such YAML.
    pub fn yaml(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        self.files.push(source::yaml(name, text)?);
        Ok(self)
    }

    /// Adds a flat `flink-conf.yaml`.
    ///
    /// # Errors
    /// Where a line is neither blank, nor a comment, nor `key: value`.
    pub fn flat(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        self.files.push(source::flat(name, text)?);
        Ok(self)
    }

    /// Adds a file by its name: flat where that is `flink-conf.yaml`, else YAML.
    ///
    /// # Errors
    /// As [`Self::yaml`] and [`Self::flat`].
    pub fn file(self, name: &str, text: &str) -> Result<Self, ConfigError> {
        let flat = name.rsplit('/').next() == Some("flink-conf.yaml");
        if flat { self.flat(name, text) } else { self.yaml(name, text) }
    }

    /// Adds a `key=value` of the command line.
    ///
    /// # Errors
    /// Where there is no `=` or no key.
    pub fn define(mut self, definition: &str) -> Result<Self, ConfigError> {
        self.definitions.push(vec![source::definition(definition)?]);
        Ok(self)
    }

    /// Adds a setting that the program makes.
    pub fn set<T: ConfigValue>(mut self, key: &Key<T>, value: T) -> Self {
        let (key, value) = (key.name.to_owned(), value.render());
        self.program.push(vec![Setting { key, value, source: Source::Program }]);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// For the first unknown key, value that its key cannot have, key that is twice in a file, or conflict.
    pub fn build(self) -> Result<(Configuration, Vec<Warning>), ConfigError> {
        let (mut configuration, mut warnings) = (Configuration::default(), Vec::new());
        for layer in self.files.into_iter().chain(self.definitions).chain(self.program) {
            let layer = check_layer(layer, &mut warnings)?;
            configuration.settings.extend(layer);
        }
        MemoryOptions::check(&configuration)?;
        EngineOptions::check(&configuration)?;
        Ok((configuration, warnings))
    }
}

/// Brings a layer's keys to their current names. Of several spellings of one key the current one counts, else the first.
fn check_layer(
    layer: Vec<Setting>,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<&'static str, Setting>, ConfigError> {
    let mut seen: BTreeMap<String, Source> = BTreeMap::new();
    let mut current: BTreeMap<&'static str, (usize, Setting)> = BTreeMap::new();
    for setting in layer {
        let place = setting.source.clone();
        if let Some(first) = seen.insert(setting.key.clone(), place.clone()) {
            return Err(ConfigError::Twice { place, key: setting.key, first });
        }
        let Some((info, rank)) = find(&setting.key) else {
            if !ignored::is_ignored(&setting.key) {
                return Err(ConfigError::UnknownKey { place, nearest: nearest(&setting.key), key: setting.key });
            }
            warnings.push(Warning::Ignored { key: setting.key, place });
            continue;
        };
        // A key without a value is as good as not there.
        if setting.value.is_empty() {
            continue;
        }
        if let Some(allowed) = (info.refuse)(&setting.value) {
            return Err(ConfigError::Value { place, key: info.name, value: setting.value, allowed });
        }
        if rank > 0 {
            warnings.push(Warning::Deprecated { key: setting.key.clone(), current: info.name, place });
        }
        let loser = match current.get(info.name) {
            Some((better, _)) if *better < rank => Some((rank, setting)),
            _ => current.insert(info.name, (rank, setting)),
        };
        if let Some((_, loser)) = loser {
            let by = current[info.name].1.key.clone();
            warnings.push(Warning::Shadowed { key: loser.key, by, place: loser.source });
        }
    }
    Ok(current.into_iter().map(|(name, (_, setting))| (name, setting)).collect())
}

/// The key of a spelling, and how old that is: 0 is current.
fn find(key: &str) -> Option<(&'static KeyInfo, usize)> {
    let current = keys::ALL.iter().find(|info| info.name == key).map(|info| (info, 0));
    let older = |info: &'static KeyInfo| Some((info, info.older.iter().position(|older| *older == key)? + 1));
    current.or_else(|| keys::ALL.iter().find_map(older))
}

/// The known key that looks most like this one, if any does: at most a third of it differs.
fn nearest(key: &str) -> Option<&'static str> {
    let ignored = ignored::KEYS.iter().map(|(name, _)| *name);
    let known = keys::ALL.iter().map(|info| info.name).chain(ignored);
    let (distance, name) = known.map(|name| (strsim::damerau_levenshtein(key, name), name)).min_by_key(|it| it.0)?;
    (distance * 3 <= key.chars().count()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_keys_are_listed_then_defaults_are_values_and_names_are_unique() {
        assert_eq!(keys::bad_defaults(), Vec::<&str>::new());
        let spellings = |info: &'static KeyInfo| std::iter::once(info.name).chain(info.older.iter().copied());
        let mut all: Vec<&str> = keys::ALL.iter().flat_map(spellings).collect();
        all.extend(ignored::KEYS.iter().flat_map(|(name, older)| std::iter::once(*name).chain(older.iter().copied())));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a spelling is listed twice");
    }

    #[test]
    fn when_a_key_is_of_flinks_then_it_is_known_and_nothing_else_is() {
        let reference: Vec<&str> = include_str!("../../tests/config/flink_keys.txt").lines().collect();
        assert!(reference.len() > 400, "{}", reference.len());
        for key in &reference {
            assert!(find(key).is_some() || ignored::is_ignored(key), "{key} is not known");
        }
        let known = keys::ALL.iter().flat_map(|info| std::iter::once(info.name).chain(info.older.iter().copied()));
        let ignored =
            ignored::KEYS.iter().flat_map(|(name, older)| std::iter::once(*name).chain(older.iter().copied()));
        for key in known.chain(ignored) {
            assert!(reference.contains(&key), "{key} is not a key of Flink's");
        }
    }
}
