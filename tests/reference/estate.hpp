// SPDX-License-Identifier: Apache-2.0
// What is balanced in the differential test, and how it changes from generation to generation.
#pragma once

#include "tests/reference/description.hpp"
#include "tests/reference/dice.hpp"

namespace sluice::reference {

// first_estate() has services of all modes without translation, over both families, on exact
// ports, ranges and any port, some with a narrow way, without next hop, without backends.
// counts_connections: least connections is among the schedulers.
description first_estate(dice& d, bool counts_connections);

// keep_steady() leaves only what needs no entry: schedulers that hash, nothing translated.
void keep_steady(description& estate, dice& d);

// change() makes the next generation: backends go down, come back, are drained, removed, given
// to other services; tables, ways and options change.
void change(description& estate, dice& d);

}  // namespace sluice::reference
