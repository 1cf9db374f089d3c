//! The order in which images are read: full ones, each followed by its increments, extent by extent.

use thalweg_model::KeyGroupRange;

use crate::{
    image::{Extent, ImageError, ImageIndex},
    place::TableConfig,
};

/// Checks that every increment goes on from the image before it.
pub(crate) fn check_order(images: &[ImageIndex]) -> Result<(), ImageError> {
    for (n, image) in images.iter().enumerate() {
        let before = n.checked_sub(1).map(|before| images[before].epoch());
        if let Some(base) = image.base().filter(|&base| Some(base) != before) {
            return Err(ImageError::OtherBase { base });
        }
    }
    Ok(())
}

/// Images that are being read for a table, and how far that is.
pub(crate) struct Order {
    pub(crate) images: Vec<ImageIndex>,
    range: KeyGroupRange,
    /// Image and extent that come next.
    next: (usize, usize),
}

impl Order {
    /// Images for a table, from the beginning.
    pub(crate) fn new(config: &TableConfig, images: Vec<ImageIndex>) -> Result<Self, ImageError> {
        for image in &images {
            if image.max_parallelism() != config.max_parallelism {
                return Err(ImageError::OtherMaxParallelism { written: image.max_parallelism().get() });
            }
        }
        check_order(&images)?;
        Ok(Self { images, range: config.range, next: (0, 0) })
    }

    /// The image and the extent that come next, without those of other key groups.
    pub(crate) fn wanted(&mut self) -> Option<(usize, Extent)> {
        loop {
            let image = self.images.get(self.next.0)?;
            match image.extents().get(self.next.1) {
                Some(extent) if extent.overlaps(self.range) => return Some((self.next.0, *extent)),
                Some(_) => self.next.1 += 1,
                None => self.next = (self.next.0 + 1, 0),
            }
        }
    }

    /// Passes the extent that is wanted, whose bytes these are.
    ///
    /// # Panics
    /// Where nothing is wanted.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<(&ImageIndex, Extent), ImageError> {
        let (image, extent) = self.wanted().expect("all extents have been given");
        if bytes.len() as u64 != extent.bytes {
            return Err(ImageError::NotAnImage);
        }
        self.next.1 += 1;
        Ok((&self.images[image], extent))
    }
}
