//! Values under small numbers that are used again.

#[derive(Clone, Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

/// Room for one more, and for an eighth: doubling would leave up to half of it unused.
pub(super) fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 4);
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[index(number)] = Some(value);
            return number;
        }
        let number = u32::try_from(self.slots.len()).expect("fewer than 2^32 pods");
        make_room(&mut self.slots);
        self.slots.push(Some(value));
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.slots.get_mut(index(number))?.take()?;
        self.free.push(number);
        if self.free.len() == self.slots.len() {
            *self = Self::default();
        }
        Some(value)
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(index(number))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(index(number))?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(n, slot)| Some((n, slot.as_ref()?)))
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("at least 32 bits")
}
