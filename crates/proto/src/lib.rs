//! Pure: everything an Offhook node decides. Partner shell: `offhook-node`.
