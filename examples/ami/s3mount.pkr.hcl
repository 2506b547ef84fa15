# packer init . && packer build .
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3"
    }
  }
}

variable "parent" {
  type        = string
  description = "ParallelCluster's own image of your system, or one that pcluster build-image made"
}

variable "user" {
  type        = string
  description = "the first user of that system: ubuntu, ec2-user (Amazon Linux, Red Hat), rocky"
  default     = "ubuntu"
}

variable "instance_type" {
  type        = string
  description = "of the parent's processor: c5.xlarge is x86_64, c7g.xlarge is arm64"
  default     = "c5.xlarge"
}

source "amazon-ebs" "node" {
  ami_name      = "hpc-with-s3-{{timestamp}}"
  instance_type = var.instance_type
  source_ami    = var.parent
  ssh_username  = var.user
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "file" {
    source      = "../../dist/s3mount-bootstrap"
    destination = "/tmp/s3mount-bootstrap"
  }

  provisioner "shell" {
    inline = [
      "sudo sh /tmp/s3mount-bootstrap install",
      "rm -f /tmp/s3mount-bootstrap",
      # ParallelCluster's own words for: make this image as good as new.
      "sudo /usr/local/sbin/ami_cleanup.sh",
    ]
  }
}
