//! Which devices at other nodes have named one of ours: these are told to be away when their node dies.

use std::collections::{HashMap, HashSet};

use happy_crypto::DeviceId;

use crate::bus::NodeId;

/// Devices remembered at most: no more than ours could name between them.
const MAX: usize = 1_000_000;

/// The devices, by node and by themselves.
#[derive(Default)]
pub(super) struct Elsewhere {
    nodes: HashMap<NodeId, HashSet<DeviceId>>,
    devices: HashMap<DeviceId, NodeId>,
}

impl Elsewhere {
    /// A device at another node has named one of ours.
    pub(super) fn is_at(&mut self, node: NodeId, device: DeviceId) {
        if self.devices.get(&device) == Some(&node) {
            return;
        }
        self.forget(&device);
        if self.devices.len() < MAX {
            self.devices.insert(device, node);
            self.nodes.entry(node).or_default().insert(device);
        }
    }

    /// It does so no longer, or has gone, as far as this node knows.
    pub(super) fn is_no_longer_at(&mut self, node: NodeId, device: &DeviceId) {
        if self.devices.get(device) == Some(&node) {
            self.forget(device);
        }
    }

    fn forget(&mut self, device: &DeviceId) {
        let Some(node) = self.devices.remove(device) else { return };
        if let Some(devices) = self.nodes.get_mut(&node) {
            devices.remove(device);
            if devices.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// All nodes that have such devices.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Takes the devices of a node that has gone.
    pub(super) fn forget_node(&mut self, node: NodeId) -> HashSet<DeviceId> {
        let devices = self.nodes.remove(&node).unwrap_or_default();
        devices.iter().for_each(|device| {
            self.devices.remove(device);
        });
        devices
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_at_one_node() {
        let (a, b) = (NodeId([1; 8]), NodeId([2; 8]));
        let (one, other) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
        let mut elsewhere = Elsewhere::default();
        elsewhere.is_at(a, one);
        elsewhere.is_at(a, other);
        elsewhere.is_at(b, one);
        // Late news of the node that it has left.
        elsewhere.is_no_longer_at(a, &one);
        assert_eq!(elsewhere.forget_node(a), HashSet::from([other]));
        assert_eq!(elsewhere.nodes(), [b]);
        elsewhere.is_no_longer_at(b, &one);
        assert!(elsewhere.nodes().is_empty() && elsewhere.devices.is_empty());
    }
}
