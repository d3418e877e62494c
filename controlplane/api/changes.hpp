// SPDX-License-Identifier: Apache-2.0
// The calls that change the desired state. Each becomes one edit for the controller.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

// changes_json() is the list of CHANGE in docs/api.md.
[[nodiscard]] json changes_json(const std::vector<model::change>& changes);
// parse_revision() reads a decimal number, nothing else.
[[nodiscard]] std::optional<std::uint64_t> parse_revision(std::string_view text);
[[nodiscard]] reply no_revision(std::uint64_t number);

[[nodiscard]] reply put_config(reconcile::controller& c, const request& r);
// rollback() makes an old revision's state the newest revision.
[[nodiscard]] reply rollback(reconcile::controller& c, const request& r);
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

// drain_node() takes this node out, or back in. No change of the desired state.
[[nodiscard]] reply drain_node(reconcile::controller& c, const request& r, bool drain);

}  // namespace sluice::api
