//! Slot allocation: which slot each subtask runs in.
//!
//! Flink's rule: vertices of one slot-sharing group share slots, one subtask of each vertex per slot, so a group needs
//! as many slots as its widest vertex has subtasks; groups do not share.

/// What allocation needs to know of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VertexSlots<'a> {
    /// Number of subtasks.
    pub parallelism: u32,
    /// Its slot-sharing group.
    pub group: &'a str,
}

/// Where everything runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotAllocation {
    /// Number of slots.
    pub slots: usize,
    /// The slot of each subtask of each vertex.
    pub slot_of: Vec<Vec<usize>>,
}

/// Gives every subtask a slot. Groups take their slots in the order in which they first appear; within a group, subtask
/// `i` of every vertex is in the group's slot `i`, so that forward edges stay on one core.
pub fn allocate_slots(vertices: &[VertexSlots<'_>]) -> SlotAllocation {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for vertex in vertices {
        let wanted = vertex.parallelism as usize;
        match groups.iter_mut().find(|(name, _)| *name == vertex.group) {
            Some((_, width)) => *width = wanted.max(*width),
            None => groups.push((vertex.group, wanted)),
        }
    }
    let first_slot =
        |group: &str| -> usize { groups.iter().take_while(|(name, _)| *name != group).map(|(_, width)| width).sum() };
    let slot_of = vertices
        .iter()
        .map(|vertex| {
            let first = first_slot(vertex.group);
            (first..first + vertex.parallelism as usize).collect()
        })
        .collect();
    SlotAllocation { slots: groups.iter().map(|(_, width)| width).sum(), slot_of }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(parallelism: u32, group: &str) -> VertexSlots<'_> {
        VertexSlots { parallelism, group }
    }

    #[test]
    fn when_all_share_one_group_then_the_widest_vertex_decides() {
        let allocation = allocate_slots(&[vertex(1, "default"), vertex(4, "default"), vertex(2, "default")]);
        assert_eq!(allocation.slots, 4);
        assert_eq!(allocation.slot_of, [vec![0], vec![0, 1, 2, 3], vec![0, 1]]);
    }

    #[test]
    fn when_there_are_groups_then_slots_add_up_and_are_disjoint() {
        let allocation = allocate_slots(&[vertex(2, "a"), vertex(3, "b"), vertex(3, "a"), vertex(1, "c")]);
        assert_eq!(allocation.slots, 7);
        assert_eq!(allocation.slot_of, [vec![0, 1], vec![3, 4, 5], vec![0, 1, 2], vec![6]]);
    }

    #[test]
    fn when_there_is_nothing_then_no_slots_are_needed() {
        assert_eq!(allocate_slots(&[]), SlotAllocation::default());
    }
}
