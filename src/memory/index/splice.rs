//! Links that are made for the sake of a way, and take none from any other node where that can be helped.
//!
//! Where a node has no place left, it gives up the link to a node that the new one leads to: what was reached by the
//! link that is given up is reached by two links then.

use super::{
    graph::{Graph, State},
    marks::Marks,
    prune::links_max,
    rows::NONE,
};

impl Graph {
    /// Has `from`, which is among those that are `reached`, lead to `to`, which is not. False when that would take the way to
    /// another node; if it `must`, only what is lost already may lose one.
    pub(super) fn lead_to(
        &mut self,
        from: u32,
        to: u32,
        layer: usize,
        reached: &Marks,
        must: bool,
    ) -> bool {
        if self.lead_freely(from, to, layer) {
            return true;
        }
        let links = self.links(from, layer);
        // What a sweep has in hand may not be linked to.
        let is_in = |&link: &u32| self.nodes[link as usize].state != State::Dying;
        let place = links.iter().rposition(is_in).unwrap_or(links.len() - 1);
        let given_up = links[place];
        let stays = is_in(&given_up);
        if !stays || !self.push_link(to, given_up, layer) {
            if !must {
                return false;
            }
            if stays {
                let ahead = self.links(to, layer);
                let last = ahead.len() - 1;
                let place = ahead.iter().rposition(|&link| reached.has(link)).unwrap_or(last);
                self.links_mut(to, layer)[place] = given_up;
            }
        }
        self.links_mut(from, layer)[place] = to;
        true
    }

    /// Has `from` lead to `to`, which leads to it. False when that would take the way to another node, unless it `must`.
    pub(super) fn lead_back(&mut self, from: u32, to: u32, layer: usize, must: bool) -> bool {
        if self.lead_freely(from, to, layer) {
            return true;
        }
        let links = self.links(from, layer);
        let last = links.len() - 1;
        let given_up = links[last];
        let is_dying = self.nodes[given_up as usize].state == State::Dying;
        if must || is_dying || self.push_link(to, given_up, layer) {
            self.links_mut(from, layer)[last] = to;
            return true;
        }
        false
    }

    /// Has `from` lead to `to` where there is a place left, or in the place of a node that `to` leads to; false when there is neither.
    fn lead_freely(&mut self, from: u32, to: u32, layer: usize) -> bool {
        debug_assert_ne!(from, to);
        if self.links(from, layer).contains(&to) || self.push_link(from, to, layer) {
            return true;
        }
        let ahead = self.links(to, layer);
        // The last ones are the farthest, or came last.
        let place = self.links(from, layer).iter().rposition(|link| ahead.contains(link));
        place.map(|place| self.links_mut(from, layer)[place] = to).is_some()
    }

    /// Adds a link where there is a place left.
    pub(super) fn push_link(&mut self, from: u32, to: u32, layer: usize) -> bool {
        let count = self.links(from, layer).len();
        if count < links_max(layer) {
            debug_assert_eq!(self.links_mut(from, layer)[count], NONE);
            self.links_mut(from, layer)[count] = to;
        }
        count < links_max(layer)
    }
}
