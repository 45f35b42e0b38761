//! The door to the file system (being written).
/// The disk; a clone is the same one.
#[derive(Clone)]
pub struct Disk;
impl Disk {
    /// The machine's own file system.
    pub fn real() -> Disk {
        todo!()
    }
}
