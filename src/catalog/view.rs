//! The published catalog: what the other threads read.

use std::sync::Arc;

use parking_lot::RwLock;

use super::state::Catalog;

/// The newest catalog that is applied on this node. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CatalogView(Arc<RwLock<Arc<Catalog>>>);

impl CatalogView {
    /// Returns the catalog as of now. It does not change any more; a later call may return a newer one.
    pub fn get(&self) -> Arc<Catalog> {
        self.0.read().clone()
    }

    /// Replaces the catalog. Only `consensus` calls it.
    pub fn publish(&self, catalog: Catalog) {
        *self.0.write() = Arc::new(catalog);
    }
}
