//! A ring for every ordered pair of cores, with a second one on which the receiver hands used
//! buffers back.
//!
//! The mesh knows nothing of what it carries. A receiver that is slow fills the ring from one
//! sender and refuses that sender; rings from the others go on.

use super::{
    doorbell::Doorbell,
    ring::{Consumer, Producer, ring},
};
use std::io;

/// What one core holds of the mesh.
pub struct Port<T> {
    /// This core's index.
    pub index: usize,
    /// One link for each core, in the order of their indices; `None` at this core's own place.
    pub links: Vec<Option<Link<T>>>,
    /// The bell of each core, this one's own among them.
    pub bells: Vec<Doorbell>,
}

/// Both directions between this core and one other.
pub struct Link<T> {
    /// To the other core.
    pub outgoing: Producer<T>,
    /// What the other core has used up and hands back.
    pub returned: Consumer<T>,
    /// From the other core.
    pub incoming: Consumer<T>,
    /// Where this core hands back what it has used up.
    pub give_back: Producer<T>,
}

/// The ports of a mesh of `cores` cores whose rings hold `capacity` values each, a power of two
/// from 2.
///
/// # Errors
/// When the kernel gives no more eventfds.
pub fn mesh<T: Send>(cores: usize, capacity: usize) -> io::Result<Vec<Port<T>>> {
    let bells = (0..cores).map(|_| Doorbell::new()).collect::<io::Result<Vec<_>>>()?;
    let mut ports: Vec<Port<T>> = (0..cores)
        .map(|index| Port {
            index,
            links: (0..cores).map(|_| None).collect(),
            bells: bells.clone(),
        })
        .collect();
    // A sender has as many values under way as its ring holds, one that its receiver works on and
    // one that it fills: a return ring of twice the size never has to let one go.
    let back = 2 * capacity;
    for low in 0..cores {
        for high in low + 1..cores {
            let (up, up_end) = ring(capacity);
            let (up_back, up_back_end) = ring(back);
            let (down, down_end) = ring(capacity);
            let (down_back, down_back_end) = ring(back);
            ports[low].links[high] = Some(Link {
                outgoing: up,
                returned: up_back_end,
                incoming: down_end,
                give_back: down_back,
            });
            ports[high].links[low] = Some(Link {
                outgoing: down,
                returned: down_back_end,
                incoming: up_end,
                give_back: up_back,
            });
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_cores_has_its_own_two_way_link() {
        let mut ports: Vec<Port<(usize, usize)>> = mesh(3, 4).unwrap();
        for port in &mut ports {
            assert!(port.links[port.index].is_none());
            let source = port.index;
            for (target, link) in port.links.iter_mut().enumerate() {
                if let Some(link) = link {
                    link.outgoing.push((source, target)).unwrap();
                }
            }
        }
        for port in &mut ports {
            let target = port.index;
            for (source, link) in port.links.iter_mut().enumerate() {
                if let Some(link) = link {
                    let value = link.incoming.pop();
                    assert_eq!(value, Some((source, target)));
                    link.give_back.push(value.unwrap()).unwrap();
                }
            }
        }
        for port in &mut ports {
            let source = port.index;
            for (target, link) in port.links.iter_mut().enumerate() {
                if let Some(link) = link {
                    assert_eq!(link.returned.pop(), Some((source, target)));
                }
            }
        }
    }
}
