// SPDX-License-Identifier: Apache-2.0
// The calls that look into the history. They wait for the disk; any thread but the loop's.
#pragma once

#include <string>

#include <tl/expected.hpp>

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

[[nodiscard]] reply history(reconcile::controller& c, const request& r);
// show_revision() is one revision with what it changed; `number` is text from the path.
[[nodiscard]] reply show_revision(reconcile::controller& c, const std::string& number);
[[nodiscard]] reply diff_revisions(reconcile::controller& c, const request& r);

// get_revision() returns the revision that `text` names, or the reply that says why not;
// `key` is where the text was.
[[nodiscard]] tl::expected<store::revision, reply> get_revision(reconcile::controller& c,
                                                                const std::string& text,
                                                                const std::string& key);

}  // namespace sluice::api
