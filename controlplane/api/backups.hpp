// SPDX-License-Identifier: Apache-2.0
// The calls about backups. They wait for the disk; any thread but the loop's.
#pragma once

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/backup_keeper.hpp"

namespace sluice::api {

[[nodiscard]] reply make_backup(reconcile::backup_keeper& keeper, const request& r);
[[nodiscard]] reply show_backups(reconcile::backup_keeper& keeper, const node_config& node);

}  // namespace sluice::api
