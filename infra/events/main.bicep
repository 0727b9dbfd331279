// Files that are dropped become messages on the queue jobs.
targetScope = 'subscription'

param resourceGroupName string
param topicName string
param accountId string
param deadLetterContainer string
param jobsQueueId string

resource group 'Microsoft.Resources/resourceGroups@2024-11-01' existing = {
  name: resourceGroupName
}

module announcements 'announcements.bicep' = {
  name: 'announcements'
  scope: group
  params: {
    topicName: topicName
    accountId: accountId
    deadLetterContainer: deadLetterContainer
    jobsQueueId: jobsQueueId
  }
}
