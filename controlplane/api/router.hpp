// SPDX-License-Identifier: Apache-2.0
// router: the calls of docs/api.md. Any thread but the loop's; several at a time.
#pragma once

#include <string>

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/backup_keeper.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

class router {
 public:
  router(reconcile::controller& controller, reconcile::backup_keeper& backups)
      : controller_{controller}, backups_{backups} {}

  // handle() answers every request; it does not throw for anything a client sent.
  [[nodiscard]] reply handle(const request& r);

 private:
  [[nodiscard]] reply config(const request& r);
  [[nodiscard]] reply services(const request& r);
  [[nodiscard]] reply service_backends(const request& r);
  [[nodiscard]] reply revisions(const request& r);

  reconcile::controller& controller_;
  reconcile::backup_keeper& backups_;
};

}  // namespace sluice::api
