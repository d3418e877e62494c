// SPDX-License-Identifier: Apache-2.0
// The calls that change the desired state. Each becomes one edit for the controller.
#pragma once

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

[[nodiscard]] reply put_config(reconcile::controller& c, const request& r);
[[nodiscard]] reply add_service(reconcile::controller& c, const request& r);
[[nodiscard]] reply patch_service(reconcile::controller& c, const request& r,
                                  const std::string& name);
[[nodiscard]] reply remove_service(reconcile::controller& c, const request& r,
                                   const std::string& name);
[[nodiscard]] reply add_backend(reconcile::controller& c, const request& r,
                                const std::string& service);
// `address` is text from the path.
[[nodiscard]] reply patch_backend(reconcile::controller& c, const request& r,
                                  const std::string& service, const std::string& address);
[[nodiscard]] reply remove_backend(reconcile::controller& c, const request& r,
                                   const std::string& service, const std::string& address);
[[nodiscard]] reply drain_backend(reconcile::controller& c, const request& r,
                                  const std::string& service, const std::string& address,
                                  bool drain);

}  // namespace sluice::api
