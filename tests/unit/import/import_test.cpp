// SPDX-License-Identifier: Apache-2.0
// What `sluice import` makes of files of keepalived and ipvsadm, held to files beside this one:
// NAME is read, NAME.yaml has to come out, and the notes of NAME.notes.
#include "tools/import/import.hpp"

#include <gtest/gtest.h>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::importing {
namespace {

std::string read(const std::string& name) {
  const auto text = read_text_file(SLUICE_SOURCE_ROOT "/tests/unit/import/" + name);
  return text ? *text : text.error().to_string();
}

void hold_to_files(const std::string& name, const result& got) {
  ASSERT_TRUE(got) << got.error().to_string();
  const std::string yaml = model::to_yaml(got->state);
  EXPECT_EQ(yaml, read(name + ".yaml")) << "wanted is what is in the file";
  std::string notes;
  for (const config_error& n : got->notes) notes += n.to_string() + "\n";
  EXPECT_EQ(notes, read(name + ".notes")) << "wanted is what is in the file";
  const auto again = config::parse_services(yaml, "out.yaml", {});
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(*again, got->state);
}

TEST(import, keepalived) {
  hold_to_files("edge.keepalived.conf",
                from_keepalived(read("edge.keepalived.conf"), "edge.keepalived.conf"));
}

TEST(import, ipvsadm) {
  hold_to_files("plain.ipvsadm", from_ipvsadm(read("plain.ipvsadm"), "plain.ipvsadm"));
}

TEST(import, checks_of_keepalived_by_datagrams_and_programs) {
  const auto got = from_keepalived(
      "virtual_server 198.51.100.53 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  DNS_CHECK {\n   type AAAA\n   name www.example.net.\n  }\n"
      " }\n}\n"
      "virtual_server 198.51.100.54 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  UDP_CHECK {\n   payload \"0a 0B\"\n   require_reply\n  }\n "
      "}\n}\n"
      "virtual_server 198.51.100.55 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  MISC_CHECK {\n   misc_path \"/usr/bin/look -v 7\"\n"
      "   misc_timeout 3\n   misc_dynamic\n  }\n }\n}\n"
      "virtual_server 198.51.100.56 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  UDP_CHECK {\n   payload 0a0\n  }\n }\n}\n"
      "virtual_server 198.51.100.57 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  MISC_CHECK {\n  }\n }\n}\n",
      "k");
  ASSERT_TRUE(got) << got.error().to_string();
  ASSERT_EQ(got->state.services.size(), 5u);
  const auto health = [&](std::size_t i) { return got->state.services[i].health; };
  EXPECT_EQ(health(0).kind, model::health_kind::dns);
  EXPECT_EQ(health(0).name, "www.example.net");
  EXPECT_EQ(health(0).record, 28);
  EXPECT_EQ(health(1).kind, model::health_kind::udp);
  EXPECT_EQ(health(1).send, "\x0a\x0b");
  EXPECT_EQ(health(1).answer, model::health_answer::any);
  EXPECT_EQ(health(2).kind, model::health_kind::exec);
  EXPECT_EQ(health(2).command, (std::vector<std::string>{"/etc/sluice/checks/look", "-v", "7"}));
  EXPECT_TRUE(health(2).weights);
  EXPECT_EQ(health(2).timeout, std::chrono::seconds{3});
  EXPECT_EQ(health(3).answer, model::health_answer::none);
  EXPECT_EQ(health(3).send, "");
  EXPECT_EQ(health(4).kind, model::health_kind::none);
  std::string notes;
  for (const auto& note : got->notes) notes += note.to_string() + "\n";
  for (const char* wanted :
       {"copy the program to /etc/sluice/checks/look", "is not hexadecimal", "names no program"})
    EXPECT_NE(notes.find(wanted), std::string::npos) << wanted << " is not in:\n" << notes;
}

TEST(import, checks_of_keepalived_by_https_and_ping) {
  const auto got = from_keepalived(
      "virtual_server 198.51.100.10 443 {\n lvs_method NAT\n delay_loop 5\n"
      " real_server 10.0.1.11 443 {\n  SSL_GET {\n   virtualhost www.example.net\n"
      "   url {\n    path /h\n    status_code 200\n   }\n  }\n }\n}\n"
      "virtual_server 198.51.100.11 443 {\n lvs_method NAT\n"
      " real_server 10.0.1.11 443 {\n  PING_CHECK {\n  }\n }\n}\n",
      "k");
  ASSERT_TRUE(got) << got.error().to_string();
  ASSERT_EQ(got->state.services.size(), 2u);
  const model::health_check& https = got->state.services[0].health;
  EXPECT_EQ(https.kind, model::health_kind::https);
  EXPECT_FALSE(https.verify) << "keepalived does not look at certificates";
  EXPECT_EQ(https.path, "/h");
  EXPECT_EQ(https.host, "www.example.net");
  EXPECT_EQ(https.expect_last, 200);
  EXPECT_EQ(got->state.services[1].health.kind, model::health_kind::icmp);
  for (const auto& note : got->notes)
    EXPECT_EQ(note.to_string().find("_GET"), std::string::npos) << note.to_string();
  const std::string yaml = model::to_yaml(got->state);
  const auto again = config::parse_services(yaml, "out.yaml", {});
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(*again, got->state);
}

std::string error_of(const result& r) {
  return r ? std::string{"none"} : r.error().to_string();
}

TEST(import, what_cannot_be_understood_is_refused_with_its_line) {
  EXPECT_EQ(error_of(from_keepalived("virtual_server 198.51.100.10 80 {\n", "k")),
            "k:1: ends within a block: a } is missing");
  EXPECT_EQ(error_of(from_keepalived("a\n}\n", "k")), "k:2: a } closes no block");
  EXPECT_EQ(error_of(from_keepalived("{\n", "k")), "k:1: a { follows no word");
  EXPECT_EQ(error_of(from_keepalived("", "k")),
            "k: there is no service in it that could be carried over");
  EXPECT_EQ(error_of(from_ipvsadm("# nothing\n", "i")),
            "i: there is no service in it that could be carried over");
  std::string deep = "virtual_server 198.51.100.10 80 ";
  for (int i = 0; i < 100; ++i) deep += "{ a ";
  EXPECT_EQ(error_of(from_keepalived(deep, "k")), "k:1: blocks are too deep");
  // Definitions that double what they hold, line by line.
  std::string bomb = "$A=" + std::string(60000, 'x') + "\n";
  for (int i = 0; i < 400; ++i) bomb += "a $A\n";
  EXPECT_EQ(error_of(from_keepalived(bomb, "k")).find("k:"), 0u);
}

TEST(import, what_a_state_refuses_is_left_out_with_a_note) {
  const auto got = from_ipvsadm(
      "-A -t 198.51.100.10:80 -s rr\n-a -t 198.51.100.10:80 -r 198.51.100.11:80 -g\n"
      "-A -t 198.51.100.11:80 -s rr\n-A -t 127.0.0.1:80 -s rr\n",
      "i");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->state.services.size(), 2u);
  ASSERT_EQ(got->notes.size(), 2u);
  EXPECT_EQ(got->notes[0].line, 2u);
  EXPECT_NE(got->notes[0].message.find("this backend is left out"), std::string::npos);
  EXPECT_EQ(got->notes[1].line, 4u);
  EXPECT_NE(got->notes[1].message.find("the service is left out"), std::string::npos);
}

TEST(import, a_host_that_is_none_is_left_out) {
  const auto got = from_keepalived(
      "virtual_server 198.51.100.10 80 {\n lb_kind DR\n virtualhost \"a b\"\n real_server "
      "10.0.1.11 80 {\n HTTP_GET {\n }\n }\n}\n",
      "k");
  ASSERT_TRUE(got);
  EXPECT_TRUE(config::parse_services(model::to_yaml(got->state), "out.yaml", {}));
  ASSERT_EQ(got->notes.size(), 1u);
  EXPECT_NE(got->notes[0].message.find("no host name"), std::string::npos);
}

}  // namespace
}  // namespace sluice::importing
