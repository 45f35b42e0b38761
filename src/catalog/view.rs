//! The published catalog, for other threads.

use std::sync::Arc;

use parking_lot::RwLock;

use super::state::Catalog;
use crate::feature_level::ClusterLevel;

/// The newest catalog that is applied on this node. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CatalogView {
    catalog: Arc<RwLock<Arc<Catalog>>>,
    level: ClusterLevel,
}

impl CatalogView {
    /// Returns a view of an empty catalog. Published catalogs set the feature level in `level`.
    pub fn new(level: ClusterLevel) -> CatalogView {
        CatalogView { catalog: Arc::default(), level }
    }

    /// Returns the cluster's feature level, and the range of this node.
    pub fn level(&self) -> &ClusterLevel {
        &self.level
    }

    /// Returns the current catalog, as an immutable copy.
    pub fn get(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Replaces the catalog. Only `consensus` calls it.
    pub fn publish(&self, catalog: Catalog) {
        self.level.set(catalog.feature_level());
        *self.catalog.write() = Arc::new(catalog);
    }
}
