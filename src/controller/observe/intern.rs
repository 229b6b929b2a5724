//! Values that many objects have in common, kept once: labels of the pods of one template, names of
//! nodes, namespaces and service accounts. Pure.
//!
//! Holds that the table does not grow beyond what is in use: what nobody else holds any more goes as
//! soon as the table has doubled since the last look.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Below this many values nobody looks what is unused.
const SMALL: usize = 256;

/// Shared values.
#[derive(Debug)]
pub struct Interned<T: ?Sized + Hash + Eq> {
    values: HashSet<Arc<T>>,
    /// At so many values it is looked what is unused.
    look_at: usize,
}

impl<T: ?Sized + Hash + Eq> Default for Interned<T> {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            look_at: SMALL,
        }
    }
}

impl<T: ?Sized + Hash + Eq> Interned<T> {
    /// The one value that is equal to this.
    pub fn get<V: Borrow<T> + Into<Arc<T>>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return known.clone();
        }
        if self.values.len() >= self.look_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.look_at = (self.values.len() * 2).max(SMALL);
            self.values.shrink_to(self.look_at);
        }
        let value: Arc<T> = value.into();
        self.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut texts = Interned::<str>::default();
        let (one, other) = (texts.get("a"), texts.get(String::from("a")));
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn what_nobody_uses_goes() {
        let mut texts = Interned::<str>::default();
        let kept: Vec<_> = (0..10).map(|n| texts.get(format!("kept-{n}"))).collect();
        for n in 0..100_000 {
            texts.get(format!("passing-{n}"));
        }
        assert!(texts.values.len() <= SMALL, "{}", texts.values.len());
        assert!(Arc::ptr_eq(&kept[3], &texts.get("kept-3")));
    }

    #[test]
    fn what_is_used_stays_however_much_it_is() {
        let mut texts = Interned::<str>::default();
        let kept: Vec<_> = (0..5_000).map(|n| texts.get(n.to_string())).collect();
        let again: Vec<_> = (0..5_000).map(|n| texts.get(n.to_string())).collect();
        assert!(kept.iter().zip(&again).all(|(a, b)| Arc::ptr_eq(a, b)));
    }
}
