//! Why a peer was refused.
