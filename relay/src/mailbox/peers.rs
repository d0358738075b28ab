//! Whom a connection names, what it was told about them, and from which nodes they name it.

use happy_crypto::DeviceId;

use crate::bus::NodeId;

/// A device that the connection names.
#[derive(Default, Clone, Copy)]
pub(super) struct Peer {
    /// Whether it is here, as far as this connection may know.
    pub(super) here: bool,
    /// What the connection was last told about it.
    pub(super) told: bool,
    /// Whether its presence waits among the control frames.
    pub(super) waiting: bool,
    /// The place of the last notice from another node.
    pub(super) heard: (u64, u64),
    /// Which of its records have changed since this connection was told; while there are any, a notice waits.
    pub(super) changed: u8,
    /// At which of [`Nodes`] it names this connection's device, as far as was heard.
    pub(super) at: Option<u16>,
}

/// Other nodes from which a connection's peers named it, each once. A place that is free is used again.
#[derive(Default)]
pub(super) struct Nodes(pub(super) Vec<Option<NodeId>>);

impl Nodes {
    /// The place of a node. None when there are far more than a relay has.
    pub(super) fn place(&mut self, node: NodeId) -> Option<u16> {
        let find = |nodes: &[Option<NodeId>], wanted| nodes.iter().position(|one| *one == wanted);
        let place = find(&self.0, Some(node)).or_else(|| find(&self.0, None)).unwrap_or(self.0.len());
        let short = u16::try_from(place).ok()?;
        match self.0.get_mut(place) {
            Some(free) => *free = Some(node),
            None => self.0.push(Some(node)),
        }
        Some(short)
    }

    /// Frees the place of a node, and gives it.
    pub(super) fn free(&mut self, node: NodeId) -> Option<u16> {
        let place = self.0.iter().position(|one| *one == Some(node))?;
        self.0[place] = None;
        u16::try_from(place).ok()
    }
}

/// Those that a connection names, by their ids. Most name a few, and 256 of them take half of what a hash map would.
#[derive(Default)]
pub(super) struct Peers(pub(super) Box<[(DeviceId, Peer)]>);

impl Peers {
    fn place(&self, device: &DeviceId) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(device))
    }

    pub(super) fn contains(&self, device: &DeviceId) -> bool {
        self.place(device).is_ok()
    }

    pub(super) fn get_mut(&mut self, device: &DeviceId) -> Option<&mut Peer> {
        let place = self.place(device).ok()?;
        self.0.get_mut(place).map(|(_, peer)| peer)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = DeviceId> {
        self.0.iter().map(|(device, _)| *device)
    }
}
