//! The extents of an image that is being written, in pieces, so that no more than one moves or goes at a time.

use crate::image::Extent;

/// Extents in a piece.
const PIECE_EXTENTS: usize = 512;

/// Extents in order.
#[derive(Default)]
pub(crate) struct Extents {
    pieces: Vec<Vec<Extent>>,
}

impl Extents {
    /// Adds an extent to the end.
    pub(crate) fn push(&mut self, extent: Extent) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE_EXTENTS => piece.push(extent),
            _ => {
                let mut piece = Vec::with_capacity(PIECE_EXTENTS);
                piece.push(extent);
                self.pieces.push(piece);
            }
        }
    }

    /// The extent at `index`. Those before it are gone then, a piece at a time.
    pub(crate) fn take(&mut self, index: usize) -> Option<Extent> {
        let (piece, at) = (index / PIECE_EXTENTS, index % PIECE_EXTENTS);
        if at == 0 && piece > 0 {
            self.pieces[piece - 1] = Vec::new();
        }
        self.pieces.get(piece)?.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use thalweg_model::KeyGroupRange;

    use super::*;

    #[test]
    fn when_extents_are_taken_in_order_then_each_comes_once() {
        for count in [0, 1, PIECE_EXTENTS, 3 * PIECE_EXTENTS + 1] {
            let mut extents = Extents::default();
            let groups = KeyGroupRange { start: 0, end: 0 };
            let all: Vec<_> = (0..count as u64).map(|offset| Extent { offset, bytes: 1, rows: 1, groups }).collect();
            all.iter().for_each(|&extent| extents.push(extent));
            let taken: Vec<_> = (0..).map_while(|index| extents.take(index)).collect();
            assert_eq!(taken, all);
        }
    }
}
