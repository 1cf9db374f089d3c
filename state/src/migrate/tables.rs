//! Restoring tables from images of an older type: entry by entry, values as a migration makes them.
//!
//! Unlike [`Restorer`](crate::Restorer), which reads rows as they are, this inserts them anew; it runs once, when a job
//! starts with a new type. The next snapshot of such a table is a full one.

use thalweg_model::{KeyHash, Record, Schema, StateSchema, record::decode_checked, schema::Part};

use super::{MigrateError, Migration, Plan};
use crate::{
    elements::AlignedBytes,
    entries::{Content, Entry},
    image::{Extent, ImageError, ImageIndex},
    list::ListTable,
    map::MapTable,
    order::Order,
    place::{Placer, Salt, TableConfig},
    table::RowTable,
};

/// A table whose values can be migrated.
pub trait Migrate: Sized {
    /// What its values are; of lists, the elements.
    type Value: Record;
    /// The types of such a table.
    fn schema() -> StateSchema;
    #[doc(hidden)]
    fn empty(config: TableConfig) -> Self;
    /// Takes what an image says of a key in, whose hash is the entry's but for the salt.
    #[doc(hidden)]
    fn take_entry(&mut self, entry: &Entry<'_>, incoming: &mut Incoming<'_, Self::Value>) -> Result<(), MigrateError>;
}

/// What taking an entry in needs besides the table.
#[doc(hidden)]
pub struct Incoming<'p, V: Record> {
    plan: &'p Plan<V>,
    placer: Placer,
    key: AlignedBytes,
    user_key: AlignedBytes,
    value: AlignedBytes,
}

impl<V: Record> Incoming<'_, V> {
    fn value(&mut self, bytes: &[u8]) -> Result<V, MigrateError> {
        self.plan.apply(self.value.of(bytes))
    }
}

/// The key of an entry and its hash, which must be of the entry's key group.
fn key_of<'k, K: Record>(
    entry: &'k Entry<'_>,
    aligned: &'k mut AlignedBytes,
    placer: &Placer,
    salt: impl Fn(K::View<'_>) -> u32,
) -> Result<(KeyHash, K::View<'k>), ImageError> {
    let key = decode_checked::<K>(aligned.of(&entry.key)).ok_or(ImageError::Damaged)?;
    let hash = KeyHash(entry.tag ^ salt(key));
    if placer.group(hash) == entry.group.0 as u32 { Ok((hash, key)) } else { Err(ImageError::Damaged) }
}

impl<K: Record, V: Record, S: Salt<K>> Migrate for RowTable<K, V, S> {
    type Value = V;

    fn schema() -> StateSchema {
        StateSchema::rows::<K, V>()
    }

    fn empty(config: TableConfig) -> Self {
        Self::new(config)
    }

    fn take_entry(&mut self, entry: &Entry<'_>, incoming: &mut Incoming<'_, V>) -> Result<(), MigrateError> {
        let value = match &entry.content {
            Content::Removed => None,
            Content::Value(value) => Some(incoming.value(value)?),
            _ => return Err(ImageError::OtherType.into()),
        };
        let (hash, key) = key_of::<K>(entry, &mut incoming.key, &incoming.placer, S::salt)?;
        match value {
            Some(value) => self.insert(hash, key, value.view()),
            None => self.remove(hash, key),
        };
        Ok(())
    }
}

impl<K: Record, E: Record> Migrate for ListTable<K, E> {
    type Value = E;

    fn schema() -> StateSchema {
        StateSchema::lists::<K, E>()
    }

    fn empty(config: TableConfig) -> Self {
        Self::new(config)
    }

    fn take_entry(&mut self, entry: &Entry<'_>, incoming: &mut Incoming<'_, E>) -> Result<(), MigrateError> {
        let elements: Vec<E> = match &entry.content {
            Content::Removed => Vec::new(),
            Content::List(elements) => {
                elements.iter().map(|element| incoming.value(element)).collect::<Result<_, _>>()?
            }
            _ => return Err(ImageError::OtherType.into()),
        };
        let (hash, key) = key_of::<K>(entry, &mut incoming.key, &incoming.placer, |_| 0)?;
        self.replace(hash, key, elements.iter().map(E::view));
        Ok(())
    }
}

impl<K: Record, UK: Record, UV: Record> Migrate for MapTable<K, UK, UV> {
    type Value = UV;

    fn schema() -> StateSchema {
        StateSchema::maps::<K, UK, UV>()
    }

    fn empty(config: TableConfig) -> Self {
        Self::new(config)
    }

    fn take_entry(&mut self, entry: &Entry<'_>, incoming: &mut Incoming<'_, UV>) -> Result<(), MigrateError> {
        let entries: &[_] = match &entry.content {
            Content::Removed => &[],
            Content::Map(entries) => entries,
            _ => return Err(ImageError::OtherType.into()),
        };
        let Incoming { plan, placer, key, user_key, value } = incoming;
        let (hash, key) = key_of::<K>(entry, key, placer, |_| 0)?;
        self.remove(hash, key);
        for (user_bytes, bytes) in entries {
            let user_key = decode_checked::<UK>(user_key.of(user_bytes)).ok_or(ImageError::Damaged)?;
            self.put(hash, key, user_key, plan.apply(value.of(bytes))?.view());
        }
        Ok(())
    }
}

/// A table that is being restored from images of an older type, extent by extent: as [`Restorer`](crate::Restorer).
pub struct Migrator<T: Migrate> {
    table: T,
    plan: Plan<T::Value>,
    config: TableConfig,
    order: Order,
}

impl<T: Migrate> Migrator<T> {
    /// Begins to restore a table from images that were stored with this schema.
    ///
    /// # Errors
    /// Where keys have changed, or values otherwise than was declared; where the images are not of that schema, or of
    /// another number of key groups, or an increment does not go on from the image before it.
    pub fn new(
        config: TableConfig,
        stored: &StateSchema,
        images: Vec<ImageIndex>,
        migration: &Migration<T::Value>,
    ) -> Result<Self, MigrateError> {
        let plan = plan_of::<T>(stored, migration)?;
        for image in &images {
            image.check_schema(stored)?;
        }
        let order = Order::new(&config, images)?;
        Ok(Self { table: T::empty(config), plan, config, order })
    }

    /// The image and the extent whose bytes are wanted next, `None` when all have been given.
    pub fn wanted(&mut self) -> Option<(usize, Extent)> {
        self.order.wanted()
    }

    /// Takes the bytes of the extent in that is wanted.
    ///
    /// # Errors
    /// Where they are damaged, or a value cannot be migrated.
    ///
    /// # Panics
    /// Where nothing is wanted.
    pub fn give(&mut self, bytes: &[u8]) -> Result<(), MigrateError> {
        let (image, extent) = self.order.pass(bytes)?;
        let (key, user_key, value) = Default::default();
        let mut incoming = Incoming { plan: &self.plan, placer: Placer::new(&self.config), key, user_key, value };
        for entry in image.entries(&extent, bytes) {
            let entry = entry?;
            if self.config.range.contains(entry.group) {
                self.table.take_entry(&entry, &mut incoming)?;
            }
        }
        Ok(())
    }

    /// The table.
    ///
    /// # Panics
    /// Where an extent is still wanted.
    pub fn finish(mut self) -> T {
        assert!(self.wanted().is_none(), "every extent that is wanted must be given first");
        self.table
    }
}

/// Checks that keys are as they were, and plans the values' migration.
fn plan_of<T: Migrate>(stored: &StateSchema, migration: &Migration<T::Value>) -> Result<Plan<T::Value>, MigrateError> {
    let current = T::schema();
    if let Err(mismatch) = stored.compare(&current)
        && mismatch.part != Part::Value
    {
        // Other names of types change nothing of the keys' bytes and hashes.
        let unnamed = |part: &Option<Schema>| part.as_ref().map(Schema::without_type_names);
        let same =
            unnamed(&stored.key) == unnamed(&current.key) && unnamed(&stored.user_key) == unnamed(&current.user_key);
        if !same {
            return Err(MigrateError::Keys(mismatch));
        }
    }
    migration.plan(stored.value.as_ref().ok_or(MigrateError::NoSchema)?)
}

/// Restores a table from images in memory that were stored with this schema, as [`restore`](crate::restore) does from
/// those of its own type.
///
/// # Errors
/// Those of [`ImageIndex::of`] and of [`Migrator`].
pub fn migrate<T: Migrate>(
    config: TableConfig,
    stored: &StateSchema,
    images: &[&[u8]],
    migration: &Migration<T::Value>,
) -> Result<T, MigrateError> {
    let indexes = images.iter().map(|image| ImageIndex::of(image)).collect::<Result<_, _>>()?;
    let mut migrator = Migrator::<T>::new(config, stored, indexes, migration)?;
    while let Some((image, extent)) = migrator.wanted() {
        let begin = extent.offset as usize;
        migrator.give(&images[image][begin..begin + extent.bytes as usize])?;
    }
    Ok(migrator.finish())
}

/// Hands the elements of a part of operator state to `f`, as the migration makes them, and answers how many there are.
///
/// # Errors
/// Where the type has changed otherwise than was declared, the bytes are damaged, or a value cannot be migrated.
pub fn migrate_elements<T: Record>(
    bytes: &[u8],
    stored: &StateSchema,
    migration: &Migration<T>,
    f: impl FnMut(T),
) -> Result<u64, MigrateError> {
    migration.plan(stored.value.as_ref().ok_or(MigrateError::NoSchema)?)?.apply_to_elements(bytes, f)
}
